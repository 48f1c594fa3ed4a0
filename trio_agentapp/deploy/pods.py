"""Why pods of a cluster are not ready, in sentences that say what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["hopeless", "pods_pending"]

HOPELESS = {
    "ErrImagePull": "the image cannot be pulled",
    "ImagePullBackOff": "the image cannot be pulled",
    "InvalidImageName": "the image has no valid name",
    "ErrImageNeverPull": "the image is not on the machine",
    "CreateContainerConfigError": "a Secret or key that it needs is missing",
    "CrashLoopBackOff": "the app ends again and again",
}
"""Reasons of waiting containers that do not go away by themselves."""

PUSH = "push it, check its name and tag, or name the Secret of its registry: --image-pull-secret NAME"
ADVICE = {
    "ErrImagePull": PUSH,
    "ImagePullBackOff": PUSH,
    "CreateContainerConfigError": "create it",
}


def hopeless(pod: Mapping[str, Any]) -> str | None:
    """Why a pod will not become ready by itself."""
    for state in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (state.get("state") or {}).get("waiting") or {}
        if (reason := waiting.get("reason")) in HOPELESS:
            image = state.get("image") or ""
            advice = ADVICE.get(reason, f"see its log: kubectl logs {pod['metadata']['name']} --previous")
            said = f": {waiting['message']}" if waiting.get("message") else ""
            return f"{HOPELESS[reason]} ({reason}, {image}){said}; {advice}"
    return None


def pods_pending(pods: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a pod has no machine; None if each has one."""
    for pod in pods:
        for condition in (pod.get("status") or {}).get("conditions") or ():
            if condition.get("reason") == "Unschedulable":
                return f"no machine has room for a pod ({condition.get('message')}); lower its --cpu-request"
    return None
