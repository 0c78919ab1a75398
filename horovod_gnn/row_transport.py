"""How ranks that Horovod has joined send each other rows: over MPI, or by Horovod's own alltoall.

`parallel` chooses: MPI where it started the ranks, Horovod's alltoall where they meet in Gloo.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gnn_core.data.exchange import Bytes, IntArray, Transport


class MpiTransport(Transport):
    """`MPI_Ialltoallv` on a communicator of its own; collective, as its `close` is.

    Args:
        mpi: the module `mpi4py.MPI`, of an MPI that is initialised for several threads.
    """

    name = "MPI_Ialltoallv"

    def __init__(self, mpi: Any):
        self._mpi, self._communicator = mpi, mpi.COMM_WORLD.Dup()
        super().__init__(self._communicator.rank, self._communicator.size)

    def alltoall(self, rows: Bytes, sent: IntArray, received: IntArray) -> Bytes:
        """See `Transport`."""
        out = np.empty((int(received.sum()), rows.shape[1]), np.uint8)
        row = self._mpi.BYTE.Create_contiguous(rows.shape[1]).Commit()  # so that rows are counted
        request = self._communicator.Ialltoallv(
            [rows, (sent, _starts(sent)), row], [out, (received, _starts(received)), row]
        )
        self.wait(request.Test)
        row.Free()
        return out

    def close(self) -> None:
        """Free the communicator."""
        self._communicator.Free()


class HorovodTransport(Transport):
    """Horovod's alltoall, which finds ranks by the name of a tensor, so that any thread may ask.

    Args:
        hvd: the module `horovod.torch`, initialised.
        failed: what it means that a collective has failed, by its reason.
    """

    name = "Horovod alltoall"

    def __init__(self, hvd: Any, failed: Callable[[str], Exception]):
        super().__init__(hvd.rank(), hvd.size())
        self._hvd, self._failed = hvd, failed

    def alltoall(self, rows: Bytes, sent: IntArray, received: IntArray) -> Bytes:
        """See `Transport`."""
        splits = torch.from_numpy(sent.astype(np.int32))
        try:
            handle = self._hvd.alltoall_async(torch.from_numpy(rows), splits, name="rows")
            self.wait(lambda: self._hvd.poll(handle))
            out, found = self._hvd.synchronize(handle)
        except RuntimeError as error:  # HorovodInternalError
            raise self._failed(" ".join(str(error).split())) from None
        if found.tolist() != received.tolist():
            raise RuntimeError(f"expected {received.tolist()} rows of the ranks, got {found}")
        whole: Bytes = out.numpy().reshape(-1, rows.shape[1])
        return whole


def _starts(counts: IntArray) -> IntArray:
    starts: IntArray = np.cumsum(counts) - counts
    return starts
