"""Messages generated from proto/ by tools/codegen/generate.py; never edited by hand."""
