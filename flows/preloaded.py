"""What a served run imports, loaded once: Python's fork server imports this, and each run begins as its fork.

Nothing here may start a thread, or compute anything that does: only the thread that forks lives on in a fork.
"""

from importlib import import_module

from reports.pdf.templates import compile_templates

# With what a run imports only when it comes to it: for findings, reports, seals.
_MODULES = """
    flows.forked_runs flows.inspection explainers.sise.sise_fast
    operations.reporting.seal reports.pdf.render scipy.stats sqlalchemy.dialects.sqlite
"""
for module in _MODULES.split():
    import_module(module)
compile_templates()
