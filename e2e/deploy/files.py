#!/usr/bin/env python3
"""Checks what is shipped beside the program, without running it: the unit, the Containerfile, the manifests, the bill of
materials. run.py starts it with the Python that has requirements.txt installed.

    e2e/deploy/files.py SBOM
"""

import pathlib
import subprocess
import sys

import jsonpatch
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

PACKAGING = pathlib.Path(__file__).resolve().parents[2] / "packaging"
PYTHONS = pathlib.Path(sys.executable).parent
KUBERNETES = "1.37"
# In tenths, as systemd-analyze wants it.
MOST_EXPOSURE = "15"


def main(sbom):
    run("systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={MOST_EXPOSURE}",
        PACKAGING / "rescind.service")
    run(PYTHONS / "hadolint", PACKAGING / "Containerfile")
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(pathlib.Path(sbom).read_text())
    if error:
        sys.exit(f"the bill of materials is none of CycloneDX: {error}")
    for kind in ("base", "three-nodes"):
        path = pathlib.Path(sbom).with_name(f"{kind}.yaml")
        objects = kustomized(PACKAGING / "kubernetes" / kind)
        path.write_text(yaml.safe_dump_all(objects))
        run(PYTHONS / "kubernetes-validate", "--strict", "-k", KUBERNETES, path)
        of_one_kind = {(object["kind"], object["metadata"]["name"]) for object in objects}
        assert len(of_one_kind) == len(objects), "two objects of one name"
        [pods] = [object["spec"]["template"]["spec"] for object in objects if object["kind"] == "StatefulSet"]
        volumes = {volume["name"] for volume in pods["volumes"]} | {"data"}
        mounted = {mount["name"] for mount in pods["containers"][0]["volumeMounts"]}
        assert volumes == mounted, f"{volumes} are there, {mounted} mounted"


def kustomized(folder):
    """The objects of a kustomization, with its patches: as much of kustomize as the manifests use."""
    file = yaml.safe_load((folder / "kustomization.yaml").read_text())
    objects = []
    for resource in file["resources"]:
        path = folder / resource
        objects += kustomized(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for patch in file.get("patches", []):
        wanted = patch["target"]
        [at] = [n for n, object in enumerate(objects)
                if (object["kind"], object["metadata"]["name"]) == (wanted["kind"], wanted["name"])]
        objects[at] = jsonpatch.JsonPatch(yaml.safe_load((folder / patch["path"]).read_text())).apply(objects[at])
    return objects


def run(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]}: {done.stdout}")
    print(f"ok     {pathlib.Path(command[0]).name} {command[-1]}")


if __name__ == "__main__":
    main(sys.argv[1])
