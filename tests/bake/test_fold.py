def test_smoke(folded):
    print(folded.manifest.facts, [f.path for f in folded.manifest.files])
