"""`python -m fewmark`."""

from fewmark.cli.app import main

if __name__ == "__main__":
    main()
