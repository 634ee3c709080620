"""The code generator: from descriptors to values, conversions, clients, informers and listers."""
