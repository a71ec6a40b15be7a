"""Steps of kind around a deployment: images are brought to the nodes, and volumes are noted."""

from __future__ import annotations

from collections.abc import Sequence

from infra.kube import snapshot
from infra.kube.api import Api, NoAnswer, Object
from infra.kube.helm_cli import Helm
from infra.kube.releases import Wanted
from infra.tiers.cluster.deploy import Hooks
from infra.tiers.kind import data, images
from infra.tiers.kind.cluster import KindCluster
from infra.tiers.kind.convoy import Convoy
from infra.tiers.kind.tools import Tools


class Nodes(Hooks):
    """The nodes of a cluster during a deployment: they pull nothing, the host brings them what releases need."""

    def __init__(self, cluster: KindCluster, tools: Tools, helm: Helm, shown: Sequence[Wanted] = ()) -> None:
        """Begin with nothing under way; `shown` is rendered, to learn which images are needed, in place of `wanted`."""
        self.cluster, self.tools, self.helm, self.shown = cluster, tools, helm, shown
        self._supply = images.supply(cluster, tools)
        self._convoy: Convoy | None = None

    def before(self, wanted: Sequence[Wanted]) -> None:
        """Bring the images of what starts first, and those of the rest in the background."""
        self._convoy = self._load(self.shown or wanted)
        self._convoy.begin()

    def held(self, release: str) -> str:
        """Tell why a release cannot start yet."""
        return self._convoy.held(release) if self._convoy else ""

    def outdated(self, pod: Object) -> str:
        """Name the image of which a pod runs an earlier build: Kubernetes sees no difference in one name."""
        return self._supply.content.earlier(pod)

    def after(self, api: Api) -> None:
        """Remember which volumes there are."""
        if self._convoy:
            self._convoy.finish()
        self._note_volumes(api)

    def stop(self) -> None:
        """End what is still being loaded."""
        if self._convoy:
            self._convoy.stop()

    def _load(self, wanted: Sequence[Wanted]) -> Convoy:
        """Start to load the images of releases, first those that need no other release."""
        of = self._supply.needed_by(wanted, self.helm)
        every = list(dict.fromkeys(image for found in of.values() for image in found))
        return Convoy(self._supply.plan(every), of, [w.name for w in wanted if not set(w.chart.needs) & set(of)])

    def _note_volumes(self, api: Api) -> None:
        try:
            claims = snapshot.take(api, events=False).claims
        except NoAnswer:
            return
        found = data.parse(claims)
        if found != data.known(self.cluster):
            data.remember(self.cluster, found)
