package cachehook

import (
	"context"
	"fmt"
)

// read takes a step of a reader.
func (w *world) read(v *visitor, f []string) {
	switch f[0] {
	case "find":
		w.find(v, len(f) == 2)
	case "row":
		w.askForRow(v)
	case "repeat":
		w.sent.arriveAgain(w.t, "birth")
	case "lookup":
		w.send(v)
	case "learn":
		w.receive(v)
	case "lead", "join":
		w.fly(v)
	case "again":
		w.again(v)
	case "read":
		w.query(v, f[2] == "replica")
	case "fill":
		w.fill(v)
	case "put":
		if v.put != nil {
			v.put()
		}
	case "serve":
		var served int64
		_, err := fmt.Sscanf(f[2], "%d", &served)
		must(w.t, err)
		if served < v.need {
			w.tooOld++
		}
		w.finish(v)
	case "fromL2", "direct":
	default:
		w.t.Fatalf("unknown step %q", f[0])
	}
}

// find begins a read, by one who finds the channel's proof too old if it asks. It
// waits until the cache has found something, or asks.
func (w *world) find(v *visitor, asks bool) {
	v.need = max(w.late, v.at.own)
	if w.sets["MONOTONIC"] {
		v.need = max(v.need, v.at.shown)
	}
	w.prove(v.at)
	if asks {
		v.at.Cache.channel.proof.Store(0)
	}
	v.asks, v.send = make(chan struct{}), make(chan struct{})
	v.answered, v.receive = make(chan struct{}), make(chan struct{})
	v.found = make(chan standing, 1)
	v.standing, v.flight, v.follows, v.put, v.row = standing{}, nil, false, nil, nil
	v.at.store.(*gate).asking.Store(v)
	// Two readers may have different statements; one is not to wait for the other.
	v.at.batches.mu.Lock()
	v.at.batches.busy = nil
	v.at.batches.mu.Unlock()
	q := v.q
	go func() {
		v.found <- v.at.find(context.Background(), &q)
	}()
	select {
	case <-v.asks:
		v.stage = "asking"
	case v.standing = <-v.found:
		v.stage = "found"
	}
}

func (w *world) send(v *visitor) {
	if v.stage == "asking" {
		v.send <- struct{}{}
		<-v.answered
		v.stage = "answered"
	}
}

func (w *world) receive(v *visitor) {
	w.send(v)
	if v.stage == "answered" {
		v.receive <- struct{}{}
		v.standing = <-v.found
		v.stage = "found"
	}
}

// fly joins a flight of the same name, or leads one.
func (w *world) fly(v *visitor) {
	w.receive(v)
	if v.stage != "found" || v.standing.stamps == nil {
		return
	}
	f, leads := v.at.flights.join(flightName(v.q.key, v.standing.stamps))
	v.flight, v.follows, v.stage = f, !leads, "flown"
}

func (w *world) again(v *visitor) {
	w.fly(v)
	if v.stage == "flown" && !v.follows {
		var why missReason
		if e, _, _ := v.at.again(&v.q, v.standing.stamps, v.standing.asked, &why); e != nil {
			v.standing.entry, v.stage = e, "read"
			v.value = versionOf(e)
		}
	}
}

// query reads the database: the replica if the trail says so and its position
// allows it.
func (w *world) query(v *visitor, replica bool) {
	w.fly(v)
	if v.stage != "flown" || v.follows {
		return
	}
	lsn, known := v.at.floors.floor(v.q.cells, v.standing.stamps)
	v.value = w.primary
	if replica && known && uint64(w.replica)+1 >= lsn && w.replica >= v.at.shown {
		v.value = w.replica
	}
	w.sampled(v.at)
	v.stage = "read"
}

func (w *world) fill(v *visitor) {
	if v.stage == "flown" {
		w.query(v, false)
	}
	if v.stage != "read" || v.follows {
		return
	}
	e := v.standing.entry
	if e == nil {
		blob := fmt.Append(nil, v.value)
		e, v.put = v.at.fill(&v.q, v.standing.stamps, blob, len(blob), v.at.now(), &payload{kind: kindBlob, blob: blob})
	}
	v.at.flights.start(flightName(v.q.key, v.standing.stamps), v.flight, func() (landing, func()) {
		return landing{verdict: landed, entry: e}, nil
	})
	<-v.flight.done
	v.standing.entry, v.stage = e, "found"
}

// finish lets a read return, and looks at what it shows.
func (w *world) finish(v *visitor) {
	if v.stage == "" {
		return
	}
	w.receive(v)
	if v.standing.entry == nil && v.standing.stamps != nil {
		w.again(v)
		w.fill(v)
	}
	switch {
	case v.follows:
		w.land(v)
	case v.standing.entry != nil:
		v.value = versionOf(v.standing.entry)
	default:
		equal(w.t, "a read without stamps goes to the primary", v.standing.primary, true)
		v.value = w.primary
	}
	if v.value < v.need {
		w.t.Errorf("shows version %d, and %d was promised", v.value, v.need)
	}
	v.at.shown = max(v.at.shown, v.value)
	v.stage = ""
}

// land ends the flight that a reader waits for.
func (w *world) land(v *visitor) {
	for _, other := range w.readers {
		if other != v && other.flight == v.flight {
			w.fill(other)
		}
	}
	<-v.flight.done
	v.value = versionOf(v.flight.entry)
}

func versionOf(e *entry) (version int64) {
	_, _ = fmt.Sscanf(string(e.value.([]byte)), "%d", &version)
	return version
}
