"""`python -m ser_lib`."""

from ser_lib.cli import main

if __name__ == "__main__":
    main()
