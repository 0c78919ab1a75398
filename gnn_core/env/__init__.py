"""The environment Ringsage runs in: installing it (`install`) and examining it (`doctor`).

Every room here keeps to the standard library at the top of its file: these programs run before
anything is installed, and when what is installed does not work.
"""
