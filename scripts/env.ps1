# Read by start-infra.ps1 and run-tests.ps1. Finds Python 3.11 or newer and makes .venv.
# After it: $Root (the checkout), $VenvPython, Invoke-BasePython.

$ErrorActionPreference = 'Stop'
$Root = Split-Path -Parent $PSScriptRoot
$OnWindows = $env:OS -eq 'Windows_NT'
$VenvPython = if ($OnWindows) { Join-Path $Root '.venv\Scripts\python.exe' } else { Join-Path $Root '.venv/bin/python' }

# These would lead Python to other packages than those of .venv.
foreach ($Name in 'PYTHONHOME', 'PYTHONPATH', 'PYTHONSTARTUP', 'PYTHONSAFEPATH', 'VIRTUAL_ENV') {
    Remove-Item -Path "Env:$Name" -ErrorAction SilentlyContinue
}

function Test-Python([string[]] $Command) {
    if (-not (Get-Command $Command[0] -ErrorAction SilentlyContinue)) { return $false }
    $Rest = @($Command | Select-Object -Skip 1)
    try { & $Command[0] @Rest -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>$null | Out-Null } catch { return $false }
    return $LASTEXITCODE -eq 0
}

function Find-Python {
    $Candidates = if ($env:PLATFORM_PYTHON) { , @($env:PLATFORM_PYTHON) }
    elseif ($OnWindows) { @('py', '-3'), @('python'), @('python3') }
    else { @('python3.14'), @('python3.13'), @('python3.12'), @('python3.11'), @('python3'), @('python') }
    foreach ($Command in $Candidates) { if (Test-Python $Command) { return , @($Command) } }
    [Console]::Error.WriteLine('error: no Python 3.11 or newer (PLATFORM_PYTHON, where set, py -3, python)')
    [Console]::Error.WriteLine("  next: install one (winget install Python.Python.3.13), or set PLATFORM_PYTHON to its path`n  exit: 5")
    exit 5
}

# Runs a module of this checkout with the Python that was found; its exit code is in $LASTEXITCODE.
function Invoke-BasePython([string[]] $Arguments) {
    $Command = Find-Python
    $Rest = @($Command | Select-Object -Skip 1)
    & $Command[0] @Rest -m @Arguments
}
