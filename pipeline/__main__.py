"""`python -m pipeline` is `replay`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
