"""neurostore as one more peer of the harness that measures loaders side by side."""

import numpy as np
from peers_lib import BIN, PEERS, WRITERS, Peer


class Neurostore(Peer):
    """One store of three sessions; windows through the local cache, or `direct` without it."""

    name = "neurostore"
    pkgs = "this package"
    direct = False

    def file(self, sid):
        return self.path() / "sessions" / "d" / sid

    def write(self, sid, r):
        import neurostore

        if (self.path() / "refs").exists():
            store = neurostore.open(self.path())
        else:
            self.path().parent.mkdir(parents=True, exist_ok=True)
            store = neurostore.create(self.path())
        made = neurostore.SessionBuilder(dataset="d", session=sid)
        ids = [str(u) for u in range(r["U"])]
        made.add_units(neurostore.Interleaved(ids, r["times"], r["clusters"]))
        made.add_behaviour("wheel", r["wheel_v"], start=0.0, rate=100, units="rad/s")
        t = r["trials"]
        more = {"stim_on_time": t["stim_on"], "stim_off_time": t["stim_off"]}
        made.add_intervals("trials", t["start"], t["stop"], **more)
        with store.transaction(sid) as tx:
            tx.put(made.build())

    def open(self, sids=None):
        import neurostore

        if self.direct:
            neurostore.cache.use(None)
        self.store = neurostore.open(self.path())
        ids = [f"d/{sid}" for sid in (sids or self.sids)]
        window = neurostore.Window(history=1.0)
        spikes, wheel = neurostore.Spikes(BIN), neurostore.Behaviour("wheel", rate=100)

        def dataset(**streams):
            return neurostore.Dataset(self.store, ids, window=window, streams=streams)

        self.count, self.event = dataset(spikes=spikes), dataset(spikes=neurostore.SpikeEvents())
        self.all = dataset(spikes=spikes, wheel=wheel)

    def counts(self, sid, s):
        return self.count.window(f"d/{sid}", s)["spikes"][0]

    def events(self, sid, s):
        found = self.event.window(f"d/{sid}", s)
        return found["spikes.time"][0], found["spikes.unit"][0]

    def wheel(self, sid, s):
        return self.all.window(f"d/{sid}", s)["wheel"][0]

    def batch(self, items):
        found = self.all.windows([f"d/{sid}" for sid, _ in items], [s for _, s in items])
        masks = found.mask["spikes"], found.mask["wheel"], found.unit_mask
        return found["spikes"], found["wheel"], masks

    def loader(self, items, workers, bs=32):
        import neurostore

        sid = items[0][0]
        window = neurostore.Window(history=1.0)
        streams = {"spikes": neurostore.Spikes(BIN)}
        store = neurostore.open(self.path())
        dataset = neurostore.Dataset(store, f"d/{sid}", window=window, streams=streams)
        return (batch["spikes"] for batch in dataset.loader(bs, workers=workers))

    def psth(self, sid):
        import neurostore

        on = self.store.session(f"d/{sid}").table("intervals/trials").columns["stim_on_time"]
        rate = float(self.store.session(f"d/{sid}").clock.rate)
        events = np.asarray(on.values[:1000]) / rate
        found = neurostore.psth(self.store.session(f"d/{sid}"), events, (-0.5, 1.0), BIN)
        return found["rate_hz"].values.T


class NeurostoreDirect(Neurostore):
    """The same store, read without the cache."""

    name = "neurostore_direct"
    direct = True

    def path(self):
        return super().path().parent / "neurostore"

    def many_counts(self, sid, starts):
        return self.count.windows([f"d/{sid}"] * len(starts), starts)["spikes"]


PEERS |= {peer.name: peer for peer in (Neurostore, NeurostoreDirect)}
WRITERS.append("neurostore")
