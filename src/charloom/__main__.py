"""`python -m charloom`."""

from charloom.cli.main import main

if __name__ == "__main__":
    main()
