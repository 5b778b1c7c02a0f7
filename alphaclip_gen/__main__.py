"""python -m alphaclip_gen is alphaclip-gen."""

from .cli import main

if __name__ == "__main__":
    main()
