"""A report as Markdown, for the UI."""

from so8t.monitor.gpus import Gpu
from so8t.monitor.look import Report
from so8t.monitor.machine import GIB


def levels(report: Report) -> str:
    """Disk, memory, GPU and what runs, in one line."""
    read, services = report.readings, report.services
    gpus = [_gpu(gpu) for gpu in read["gpus"]]
    said = [
        f"disk {read['disk_free_bytes'] / GIB:.1f} GiB free",
        f"memory {read['memory_available_bytes'] / GIB:.1f} of {read['memory_total_bytes'] / GIB:.1f} GiB available",
        *(gpus or [f"no GPU seen ({read['gpus_absent'] or 'the driver knows none'})"]),
        f"so8t up {'runs' if services.up else 'does not run'}",
        f"server {'answers' if services.server_port else 'does not answer'}",
        f"{len(services.workers)} worker(s)",
        f"{len(report.units)} process(es) of runs at work",
    ]
    return ", ".join(said)


def _gpu(gpu: Gpu) -> str:
    used = f", {gpu['used_bytes'] / GIB:.1f} of {gpu['total_bytes'] / GIB:.1f} GiB used" if gpu["used_bytes"] else ""
    return f"GPU {gpu['index']} {gpu['temperature_c']} C{used}"


def page(report: Report) -> str:
    """Headline, what stands, what was done, the levels."""
    warnings = sum(finding.severity == "warn" for finding in report.findings)
    head = f"{warnings} thing(s) want an eye" if warnings else "All is well"
    lines = [f"# {head}", "", f"Looked at {report.at[:19].replace('T', ' ')} UTC: {levels(report)}."]
    if report.findings:
        lines += ["", "| | what | found | what to do |", "|---|---|---|---|"]
        lines += [_row(one.severity, one.kind, one.found, one.do) for one in report.findings]
    if report.actions:
        lines += ["", "## Done", "", "| what | about | did | outcome |", "|---|---|---|---|"]
        lines += [_row(one.kind, one.subject, one.did, one.outcome) for one in report.actions]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
