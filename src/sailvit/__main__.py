"""Entry point of `python -m sailvit`."""

from sailvit.cli.app import main

if __name__ == "__main__":
    main()
