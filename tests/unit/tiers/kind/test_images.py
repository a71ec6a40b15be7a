from __future__ import annotations

from infra.tiers.kind import images


def test_images_of_rendered_manifests_each_once() -> None:
    text = """
      initContainers:
        - image: "repo/setup:1"
          name: image
      containers:
        - name: a
          image: repo/server:2
        - name: b
          image: 'repo/server:2'
          # image: no/comment:3
      note: image
    """
    assert images.named_in(text) == ["repo/setup:1", "repo/server:2"]
