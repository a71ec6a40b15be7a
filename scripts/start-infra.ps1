# One command on a fresh machine: makes .venv, then starts or stops the platform.
#   start-infra.ps1 [-WithObservability] [-Stop]
[CmdletBinding(PositionalBinding = $false)]
param([switch] $WithObservability, [switch] $Stop)

. (Join-Path $PSScriptRoot 'env.ps1')
Push-Location $Root
try {
    Invoke-BasePython @('scripts.make_env', 'platform')
    if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
    $Task = if ($Stop) { @('down') } elseif ($WithObservability) { @('up', '--obs') } else { @('up') }
    & $VenvPython -m invoke @Task
    exit $LASTEXITCODE
} finally {
    Pop-Location
}
