package resolver

import "sort"

// timelineSize is how many samples are kept. At four a second the newer half
// holds half a minute of unbroken writing; the older half is thinned out, so
// that it reaches back for hours, ever more coarsely.
const timelineSize = 256

// sample says that the primary's WAL had come to lsn at a time after sent: every
// commit that had returned before sent lies at or below lsn.
type sample struct {
	sent int64 // nanoseconds of the resolver's clock
	lsn  uint64
}

// timeline is the primary's samples in the order in which they were sent. With
// it a replica's staleness needs neither a clock of the server, nor a heartbeat
// table, nor a privilege: it is the age of the newest sample that the replica
// has replayed. An idle primary cannot make a replica look stale, because its
// samples repeat one LSN, and a replica without a WAL receiver cannot look
// fresh, because the samples go on.
//
// It is not safe for concurrent use.
type timeline struct {
	samples []sample
}

// add appends the newest sample. An LSN below the last one belongs to another
// history, to which nothing of the old one can be compared.
func (t *timeline) add(s sample) {
	n := len(t.samples)
	if n > 0 {
		switch last := &t.samples[n-1]; {
		case s.lsn < last.lsn:
			t.samples = t.samples[:0]
		case s.sent <= last.sent:
			return
		case s.lsn == last.lsn:
			last.sent = s.sent // says all that the older one said
			return
		case n == timelineSize:
			t.thin()
		}
	}
	t.samples = append(t.samples, s)
}

// thin drops every second sample of the older half. Judging by an older sample
// than could have been makes a replica look older, never fresher.
func (t *timeline) thin() {
	kept := t.samples[:0]
	for i, s := range t.samples {
		if i >= timelineSize/2 || i%2 == 0 {
			kept = append(kept, s)
		}
	}
	t.samples = kept
}

// reset forgets everything.
func (t *timeline) reset() { t.samples = t.samples[:0] }

// last returns the newest sample.
func (t *timeline) last() (s sample, ok bool) {
	if len(t.samples) == 0 {
		return sample{}, false
	}
	return t.samples[len(t.samples)-1], true
}

// replayed returns the time since which a node that has replayed up to lsn may
// lack commits: the sending of the newest sample that it has replayed. It is
// false when the node is behind all of them.
func (t *timeline) replayed(lsn uint64) (sent int64, ok bool) {
	i := sort.Search(len(t.samples), func(i int) bool { return t.samples[i].lsn > lsn })
	if i == 0 {
		return 0, false
	}
	return t.samples[i-1].sent, true
}

// The sizes of the headers that Postgres puts in front of each page of WAL, and
// of the longer one in front of a segment's first (XLogPageHeaderData and
// XLogLongPageHeaderData in access/xlog_internal.h).
const (
	shortPageHeader = 24
	longPageHeader  = 40
)

// walUnits are the sizes that a server was built and initialised with, in bytes.
type walUnits struct {
	block, segment uint64
}

// normalize moves an LSN that stands just behind a page's header to the page's
// start. The insert position is there when the last record filled the page
// before: a standby has then replayed all there is, reports the page's start,
// and comes no further while nothing more is written. No record ends behind a
// header, so no other LSN is changed.
func (u walUnits) normalize(lsn uint64) uint64 {
	switch {
	case u.segment > 0 && lsn%u.segment == longPageHeader:
		return lsn - longPageHeader
	case u.block > 0 && lsn%u.block == shortPageHeader && (u.segment == 0 || lsn%u.segment != shortPageHeader):
		return lsn - shortPageHeader
	}
	return lsn
}
