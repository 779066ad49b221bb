/* C99's complex functions, which Wine 8's C runtime lacks: mingw-w64's, in the shape in which Microsoft's are called. */
#include <complex.h>

typedef struct { double part[2]; } wide;
typedef struct { float part[2]; } narrow;

#define TO_COMPLEX(kind, name, real) \
    static inline real _Complex name(kind z) { union { kind made; real _Complex taken; } u = {z}; return u.taken; }
#define FROM_COMPLEX(kind, name, real) \
    static inline kind name(real _Complex z) { union { real _Complex taken; kind made; } u = {z}; return u.made; }
TO_COMPLEX(wide, of_wide, double)
TO_COMPLEX(narrow, of_narrow, float)
FROM_COMPLEX(wide, to_wide, double)
FROM_COMPLEX(narrow, to_narrow, float)

/* long double is double there. */
#define REAL(name) \
    double lane_##name(wide z) { return name(of_wide(z)); } \
    double lane_##name##l(wide z) { return name(of_wide(z)); } \
    float lane_##name##f(narrow z) { return name##f(of_narrow(z)); }
#define COMPLEX(name) \
    wide lane_##name(wide z) { return to_wide(name(of_wide(z))); } \
    wide lane_##name##l(wide z) { return to_wide(name(of_wide(z))); } \
    narrow lane_##name##f(narrow z) { return to_narrow(name##f(of_narrow(z))); }

REAL(cabs) REAL(carg) REAL(cimag) REAL(creal)
COMPLEX(ccos) COMPLEX(ccosh) COMPLEX(cexp) COMPLEX(clog) COMPLEX(csin) COMPLEX(csinh) COMPLEX(csqrt) COMPLEX(ctan)
COMPLEX(ctanh) COMPLEX(cacos) COMPLEX(cacosh) COMPLEX(casin) COMPLEX(casinh) COMPLEX(catan) COMPLEX(catanh)

#define COMPLEX2(name) \
    wide lane_##name(wide z, wide w) { return to_wide(name(of_wide(z), of_wide(w))); } \
    wide lane_##name##l(wide z, wide w) { return to_wide(name(of_wide(z), of_wide(w))); } \
    narrow lane_##name##f(narrow z, narrow w) { return to_narrow(name##f(of_narrow(z), of_narrow(w))); }

COMPLEX2(cpow)
