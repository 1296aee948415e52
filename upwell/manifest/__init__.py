"""The manifest: what an index is made of at one version, and the one commit point.

state.py is the value and its invariants, chain.py the versions in the store and the commit, head.py the newest of them;
failures.py what could not be applied, and why; namespaces.py what namespaces are called.
"""

from upwell.manifest.chain import ManifestChain as ManifestChain
from upwell.manifest.failures import Failures as Failures
from upwell.manifest.head import ManifestHead as ManifestHead
from upwell.manifest.namespaces import Namespaces as Namespaces
from upwell.manifest.namespaces import NamespacesDraft as NamespacesDraft
from upwell.manifest.namespaces import NamespaceTables as NamespaceTables
from upwell.manifest.state import DeletionRef as DeletionRef
from upwell.manifest.state import Failure as Failure
from upwell.manifest.state import Manifest as Manifest
from upwell.manifest.state import MutationResult as MutationResult
from upwell.manifest.state import SegmentRef as SegmentRef
from upwell.manifest.state import ShardState as ShardState
from upwell.manifest.state import Totals as Totals
