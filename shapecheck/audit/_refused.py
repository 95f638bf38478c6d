"""What the import hook met and could not put under contract, though it has tensors in its annotations, or may have."""

from .._packages.hook import hook_report


def refused(*packages: str) -> dict[str, str]:
    """Return the reason for each function, record or module, by qualified name, in this process.

    Args:
        *packages: Names of packages or modules to report on; all, if none is named.
    """
    report = hook_report(*packages)
    return {".".join(filter(None, (one.module, one.name))): one.reason for one in report.of("refused")}
