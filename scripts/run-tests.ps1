# Makes .venv and runs everything that this machine can run; run-tests.ps1 --help lists the options.

. (Join-Path $PSScriptRoot 'env.ps1')
Push-Location $Root
try {
    Invoke-BasePython (@('scripts.run_tests') + $args)
    exit $LASTEXITCODE
} finally {
    Pop-Location
}
