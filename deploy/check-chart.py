#!/usr/bin/env python3
"""Checks the Helm chart: renders it for every file of values in its ci/ folder, and looks at what comes out.

Renders with `helm`, or with the Python package helm-python-sdk, which is Helm's own library. Where neither is, only what can
be seen without them is checked, and that is said: the YAML of the chart's own files, the brackets of the templates, and that
each value which a template names is in values.yaml.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parent / "helm" / "staydown"
RELEASE, NAMESPACE = "acme", "forum"
# As the files in ci/, and the values alone.
CASES = [None, *sorted((CHART / "ci").glob("*-values.yaml"))]
# Values that must be refused, and what the refusal says.
REFUSED = [
    ({"phase": "runn"}, "expected init, join or run"),
    ({"phase": "init"}, "member.name"),
    ({"phase": "join"}, "forum.invitation"),
    ({"settings": {"web": {"listen": "off"}}}, "the chart's own"),
    ({"settings": {"peer": {"listen": "0.0.0.0:1"}}}, "peer.port"),
    ({"metrics": {"serviceMonitor": {"enabled": True}}}, "token of scope metrics"),
]


def load(path):
    return yaml.safe_load(path.read_text())


def check_without_renderer():
    values = load(CHART / "values.yaml")
    chart = load(CHART / "Chart.yaml")
    assert chart["apiVersion"] == "v2" and chart["name"] == "staydown", chart
    for case in CASES[1:]:
        load(case)
    for path in sorted((CHART / "templates").iterdir()):
        text = path.read_text()
        assert text.count("{{") == text.count("}}"), f"{path}: a bracket is not closed"
        for action in re.findall(r"\{\{-?(.*?)-?\}\}", text, re.DOTALL):
            assert action.count("(") == action.count(")"), f"{path}: {{{{{action}}}}}"
        blocks = re.findall(r"\{\{-?\s*(if|range|with|define|block)\b", text)
        ends = re.findall(r"\{\{-?\s*end\b", text)
        # `{{ if a }}b{{ end }}` on one line counts like any other.
        assert len(blocks) == len(ends), f"{path}: {len(blocks)} blocks begin, {len(ends)} end"
        for name in set(re.findall(r"\.Values\.([A-Za-z.]+)", text)):
            place = values
            for part in name.rstrip(".").split("."):
                assert isinstance(place, dict) and part in place, f"{path}: .Values.{name} is not in values.yaml"
                place = place[part]


def with_helm(values):
    command = ["helm", "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", "-"]
    done = subprocess.run(command, input=yaml.safe_dump(values or {}), capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr)
    return [part for part in yaml.safe_load_all(done.stdout) if part]


def lint_with_helm(values):
    command = ["helm", "lint", "--strict", str(CHART), "--values", "-"]
    done = subprocess.run(command, input=yaml.safe_dump(values or {}), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def with_library(values):
    import helm_python

    try:
        rendered = helm_python.Chart.load(CHART).render(values or {}, name=RELEASE, namespace=NAMESPACE)
    except helm_python.HelmError as error:
        raise ValueError(str(error)) from error
    texts = [text for path, text in sorted(rendered.items()) if path.endswith(".yaml")]
    return [part for text in texts for part in yaml.safe_load_all(text) if part]


def lint_with_library(values):
    import helm_python

    report = helm_python.lint(CHART, values or {}, strict=True, namespace=NAMESPACE)
    bad = [message for message in report["messages"] or [] if message["severity"] >= 2]
    assert not bad and not report.get("errors"), report


def renderer():
    if shutil.which("helm"):
        return lint_with_helm, with_helm, "helm"
    try:
        import helm_python  # noqa: F401
    except ImportError:
        return None
    return lint_with_library, with_library, "helm's library"


def pods(objects):
    for one in objects:
        if one["kind"] in ("StatefulSet", "Job"):
            yield one["kind"], one["spec"]["template"]["spec"]


def check(objects, values, where):
    kinds = [one["kind"] for one in objects]
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names)), f"{where}: two of one name: {names}"
    for one in objects:
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == RELEASE, f"{where}: {one['metadata']}"
        for name, text in (one.get("data") or {}).items():
            assert "PRIVATE KEY" not in str(text) and "sdt_" not in str(text), f"{where}: a secret in {name}"
    for kind, pod in pods(objects):
        ground = pod["securityContext"]
        assert ground["runAsNonRoot"] and ground["runAsUser"] > 0, f"{where}: {kind} as root"
        assert ground["fsGroupChangePolicy"] == "OnRootMismatch", f"{where}: key files would become readable"
        assert ground["seccompProfile"]["type"] == "RuntimeDefault", where
        assert pod["automountServiceAccountToken"] is False, where
        declared = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"], where
            assert rights["capabilities"] == {"drop": ["ALL"]}, where
            assert {mount["name"] for mount in container["volumeMounts"]} == declared, where
            assert all(isinstance(argument, str) for argument in container["args"]), container["args"]
    stateful = next(one for one in objects if one["kind"] == "StatefulSet")
    phase = (values or {}).get("phase", "run")
    assert stateful["spec"]["replicas"] == (0 if phase == "init" else 1), where
    assert ("Job" in kinds) == (phase == "init"), where
    arguments = stateful["spec"]["template"]["spec"]["containers"][0]["args"]
    assert phase == "init" or arguments[0] == phase, arguments
    claim = next(one for one in objects if one["kind"] == "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", where
    for one in objects:
        if one["kind"] == "Service":
            selector = one["spec"]["selector"]
            labels = stateful["spec"]["template"]["metadata"]["labels"]
            assert selector.items() <= labels.items(), f"{where}: {one['metadata']['name']} selects nothing"
    settings = next(one for one in objects if one["kind"] == "ConfigMap")["data"]["staydown.toml"]
    tls = (values or {}).get("web", {}).get("tls", {}).get("existingSecret")
    read = tomllib.loads(settings)
    assert bool(tls) == ("certificate" in read["web"]) and bool(tls) != read["web"].get("allow_plaintext", False), read
    return settings


def check_with(lint, render, out):
    for case in CASES:
        values = load(case) if case else None
        where = case.name if case else "values.yaml"
        lint(values)
        settings = check(render(values), values, where)
        if out:
            (out / f"{where}.toml").write_text(settings)
    for values, reason in REFUSED:
        try:
            render(values)
        except ValueError as error:
            assert reason in str(error), f"{values}: {error}"
        else:
            raise AssertionError(f"{values} is rendered, expected a refusal: {reason}")


def main():
    # A folder for the rendered settings, so that the node itself can be asked what it thinks of them.
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    check_without_renderer()
    found = renderer()
    if found is None:
        print("chart: its own files are sound; not rendered, for there is no helm (nor the Python package helm-python-sdk)")
        return
    lint, render, name = found
    check_with(lint, render, out)
    print(f"chart: linted and rendered by {name} for {len(CASES)} sets of values, {len(REFUSED)} wrong ones refused")


if __name__ == "__main__":
    main()
