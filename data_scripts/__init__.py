"""One script a data set: fetch, verify, unpack, prepare, check. `python -m data_scripts.<name> --root DIR`.

What they share, one idea a file: `fetch` brings a file from the network, `obtain` takes an archive from there
or from where the user put it, `archives` knows an archive's size and MD5, `unpack` opens it safely, `scratch`
keeps half-done work out of sight, `space` asks the disk first, `licence` asks the user first, `manifest`
remembers what was prepared and notices later changes, `domains` checks two folders of photographs, `colour`
turns renderings into sRGB, and `command` is the frame of a command line.
"""
