"""The Python API: one function a command, with its flags as keywords, and models to ask. `swift` itself offers them."""
