"""One module per Invoke namespace: options in, an answer out; the work is done elsewhere."""

if __name__ == "tasks":  # Invoke, called in the directory above, takes this package for the checkout's tasks.py
    import runpy
    import sys
    from pathlib import Path

    _here = Path(__file__).resolve().parent
    _ours = {str(_here), str(_here.parent)}  # their modules have names that packages have, too
    sys.path[:] = [str(_here.parent.parent), *(place for place in sys.path if place not in _ours)]
    namespace = runpy.run_path(str(_here.parent.parent / "tasks.py"))["namespace"]
