"""Rules of the API server for objects that create pods: Job, CronJob, Deployment and others."""

from __future__ import annotations

from typing import Any

from gnn_core.deploy.field_types import shown
from gnn_core.deploy.pods import Problems
from gnn_core.deploy.scheduling import selector_problems
from gnn_core.deploy.yaml_objects import Object

ALWAYS_RUNNING = ("Deployment", "StatefulSet", "DaemonSet")
_MOST_RULES, _MOST_CODES = 20, 255
_MOST_CODE = 255


def job_problems(job: Object) -> Problems:
    """A Job's pods end, and its rules on failures are rules that can be followed."""
    yield from _job_problems(job["spec"], "spec")


def cron_problems(cron: Object) -> Problems:
    """The same of the Jobs of a CronJob."""
    yield from _job_problems(cron["spec"]["jobTemplate"]["spec"], "spec.jobTemplate.spec")
    if len(cron["spec"]["schedule"].split()) != 5 and cron["spec"]["schedule"][:1] != "@":
        got = shown(cron["spec"]["schedule"])
        yield "spec.schedule", f"expected five fields as in cron, or @daily, got {got}"


def _job_problems(spec: dict[str, Any], at: str) -> Problems:
    pod, policy = spec["template"]["spec"], spec.get("podFailurePolicy")
    restart = pod.get("restartPolicy", "Always, the default")
    if restart not in ("Never", "OnFailure"):
        yield f"{at}.template.spec.restartPolicy", f"expected Never or OnFailure, got {restart}"
    elif policy is not None and restart != "Never":
        yield (
            f"{at}.template.spec.restartPolicy",
            f"expected Never beside a podFailurePolicy, got {restart}: change it, or leave "
            "podFailurePolicy out",
        )
    if policy is not None:
        yield from _failures_problems(spec, f"{at}.podFailurePolicy")
        if spec.get("podReplacementPolicy", "Failed") != "Failed":
            got = f"expected Failed beside a podFailurePolicy, got {spec['podReplacementPolicy']}"
            yield f"{at}.podReplacementPolicy", got
    indexed = spec.get("completionMode") == "Indexed"
    if indexed and "completions" not in spec:
        yield f"{at}.completions", "expected a number beside completionMode Indexed, got none"
    for name in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"):
        if name in spec and not indexed:
            yield f"{at}.{name}", "expected completionMode: Indexed beside it: add it"
    if "selector" in spec and not spec.get("manualSelector"):
        yield f"{at}.selector", "the server makes it: leave it out"


def _failures_problems(spec: dict[str, Any], at: str) -> Problems:
    rules = spec["podFailurePolicy"]["rules"]
    if len(rules) > _MOST_RULES:
        yield f"{at}.rules", f"expected at most {_MOST_RULES}, got {len(rules)}"
    pod = spec["template"]["spec"]
    names = [one["name"] for key in ("containers", "initContainers") for one in pod.get(key) or ()]
    for index, rule in enumerate(rules):
        where = f"{at}.rules[{index}]"
        given = [name for name in ("onExitCodes", "onPodConditions") if rule.get(name)]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            yield where, f"expected onExitCodes or onPodConditions, one of them, got {got}"
        if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in spec:
            yield f"{where}.action", "expected a backoffLimitPerIndex beside FailIndex, got none"
        if codes := rule.get("onExitCodes"):
            yield from _codes_problems(codes, f"{where}.onExitCodes")
            if codes.get("containerName", names[0]) not in names:
                yield (
                    f"{where}.onExitCodes.containerName",
                    f"expected one of {', '.join(names)}, got {codes['containerName']!r}",
                )


def _codes_problems(codes: dict[str, Any], at: str) -> Problems:
    values = codes["values"]
    if values != sorted(set(values)):
        right = sorted(set(values))
        yield f"{at}.values", f"expected them in order, each once: {right}, got {shown(values)}"
    if codes["operator"] == "In" and 0 in values:
        yield f"{at}.values", "0 is no failure: leave it out"
    if len(values) > _MOST_CODES:
        yield f"{at}.values", f"expected at most {_MOST_CODES}, got {len(values)}"
    if wrong := [value for value in values if value > _MOST_CODE]:
        yield f"{at}.values", f"expected exit codes of at most {_MOST_CODE}, got {wrong[0]}"


def running_problems(one: Object) -> Problems:
    """What a Deployment, StatefulSet or DaemonSet makes runs for ever, and is what it selects."""
    spec = one["spec"]
    pod = spec["template"]["spec"]
    if pod.get("restartPolicy", "Always") != "Always":
        got = pod["restartPolicy"]
        yield "spec.template.spec.restartPolicy", f"expected Always, got {got}: leave it out"
    if "activeDeadlineSeconds" in pod:
        yield (
            "spec.template.spec.activeDeadlineSeconds",
            f"pods of a {one['kind']} have none: leave it out, or make it a Job",
        )
    selector = spec["selector"]
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield "spec.selector", "expected labels, got none: name those of the template"
    yield from selector_problems("spec.selector", selector)
    yield from _strategy_problems(spec)


def _strategy_problems(spec: dict[str, Any]) -> Problems:
    strategy = spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    if strategy.get("type") == "Recreate" and "rollingUpdate" in strategy:
        yield "spec.strategy.rollingUpdate", "expected none with type Recreate: leave it out"
    amounts = [rolling.get(name) for name in ("maxUnavailable", "maxSurge")]
    if all(amount in (0, "0%") for amount in amounts):
        yield "spec.strategy.rollingUpdate", "expected maxUnavailable or maxSurge above 0, got 0"
    for name, amount in zip(("maxUnavailable", "maxSurge"), amounts, strict=True):
        if isinstance(amount, str) and not amount.removesuffix("%").isdigit():
            got = f"expected a number or a percentage such as 25%, got {amount!r}"
            yield f"spec.strategy.rollingUpdate.{name}", got
    deadline = spec.get("progressDeadlineSeconds", 600)
    if spec.get("minReadySeconds", 0) >= deadline:
        got = spec["minReadySeconds"]
        least = f"expected less than progressDeadlineSeconds, {deadline}, got {got}"
        yield "spec.minReadySeconds", least
