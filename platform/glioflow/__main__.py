"""`python -m glioflow`."""

from glioflow.cli import main

if __name__ == "__main__":
    main()
