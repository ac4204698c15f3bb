"""``python -m gradiator_np``: the command line."""

from gradiator_np._cli import main

if __name__ == "__main__":
    raise SystemExit(main())
