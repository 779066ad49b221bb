/* Wine 8 lacks this DLL; Rust's standard library takes its random numbers from it. */
#include <windows.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size_bytes) {
    return RtlGenRandom(data, (ULONG)size_bytes);
}
