package cachehook

import (
	"context"
	"testing"
	"time"
)

// rosterNaming makes a roster that names a schema, and a clock of the test's own.
func rosterNaming(t testing.TB, schema stamp) (r *roster, now *int64, present **catalog) {
	t.Helper()
	now, present = new(int64), new(*catalog)
	m := newMirror(false)
	r = newRoster(func() int64 { return *now })
	r.lease = time.Hour
	r.cellOf = func(tag string) *cell { return m.cell(tag, true) }
	r.schema.present = func() *catalog { return *present }
	r.schema.drop = func(c *catalog) {
		if *present == c {
			*present = nil
		}
	}
	r.answers(schema, false)
	return r, now, present
}

// answers has the roster take an answer.
func (r *roster) answers(schema stamp, pending bool) {
	r.take(rosterQuestion{}, rosterAnswer{born: "x", token: schema.String(), enlisted: true, settled: true, schema: schema, pending: pending}, r.now())
}

// acknowledges tells what the next question acknowledges.
func (r *roster) acknowledges(t testing.TB) (token string) {
	t.Helper()
	r.ask = func(_ context.Context, q rosterQuestion) (rosterAnswer, error) {
		token = q.acknowledged
		return rosterAnswer{}, context.Canceled
	}
	r.question(context.Background())
	return token
}

func TestSchemaIsAcknowledgedWhenNoWriteGoesByAnEarlierOne(t *testing.T) {
	t.Parallel()
	one, two := mint(), mint()
	a, b := tableTag("a"), tableTag("b")
	r, now, present := rosterNaming(t, one)
	*present = &catalog{schema: one}
	equal(t, "acknowledged", r.acknowledges(t), one.String())
	told, leaves := r.omit([]string{a}, *present)
	equal(t, "told", len(told), 0)
	r.known[b] = struct{}{}
	_, tells := r.omit([]string{b}, *present)
	r.answers(two, false)
	equal(t, "the old catalogue is dropped", *present == nil, true)
	equal(t, "acknowledged while one write goes by the old schema and tells, and one leaves out", r.acknowledges(t), "")
	r.end(leaves)
	equal(t, "acknowledged while one goes by the old schema and tells", r.acknowledges(t), "")
	r.end(tells)
	equal(t, "acknowledged when they have ended", r.acknowledges(t), two.String())

	old := &catalog{schema: one, since: one}
	told, o := r.omit([]string{a}, old)
	equal(t, "told, of a catalogue of before", len(told), 1)
	equal(t, "waited for", o.sure, false)
	r.end(o)
	told, o = r.omit([]string{a}, &catalog{schema: mint(), since: two})
	equal(t, "told, of one that was read since", len(told), 0)
	equal(t, "acknowledged meanwhile", r.acknowledges(t), two.String())
	equal(t, "sound", r.end(o), true)

	_, o = r.omit([]string{a}, &catalog{schema: two})
	r.answers(mint(), false)
	*now += int64(schemaPatience) - 1
	equal(t, "acknowledged while it is waited for", r.acknowledges(t), "")
	*now++
	equal(t, "acknowledged when it has been waited for long enough", r.acknowledges(t), r.token)
	equal(t, "sound", r.end(o), false)
}

func TestSchemaIsAdmittedWhenAllHaveAcknowledgedIt(t *testing.T) {
	t.Parallel()
	one, two := mint(), mint()
	r, _, present := rosterNaming(t, one)
	equal(t, "admitted", r.schema.admits(one), true)
	r.answers(two, true)
	equal(t, "admitted while others have not acknowledged it", r.schema.admits(two), false)
	_, own := r.omit([]string{tableTag("a")}, &catalog{schema: one})
	r.answers(two, false)
	equal(t, "admitted while an own write goes by the one before", r.schema.admits(two), false)
	r.end(own)
	r.answers(two, false)
	equal(t, "admitted", r.schema.admits(two), true)
	equal(t, "the one before", r.schema.admits(one), false)
	*present = &catalog{schema: two}
	r.take(rosterQuestion{}, rosterAnswer{born: "y", token: "2", settled: true, pending: true}, 0)
	equal(t, "admitted after the roster was lost", r.schema.admits(two), false)
	equal(t, "the catalogue stays", *present != nil, true)
}

// Of a roster that is not the one of before this instance has not asked yet whether it
// is old enough for marks that were lost with the other.
func TestRosterThatFollowsALostOneIsNotUsedByTheAnswerThatTellsOfIt(t *testing.T) {
	t.Parallel()
	schema := mint()
	r, _, _ := rosterNaming(t, schema)
	lost := false
	r.ask = func(_ context.Context, q rosterQuestion) (rosterAnswer, error) {
		lost = q.lost
		return rosterAnswer{born: "y", token: "2", enlisted: true, settled: true, schema: schema}, nil
	}
	r.question(context.Background())
	equal(t, "it has asked as one that knew another roster", lost, false)
	equal(t, "admitted", r.schema.admits(schema), false)
	r.question(context.Background())
	equal(t, "it has asked so now", lost, true)
	equal(t, "admitted", r.schema.admits(schema), true)
}

// Two instances with different catalogues would rename the roster to and fro.
func TestSchemaIsNamedByWhoHasLookedSinceTheLastOneWas(t *testing.T) {
	t.Parallel()
	one, two := mint(), mint()
	r, _, present := rosterNaming(t, stamp{})
	for _, c := range []struct {
		what     string
		named    stamp
		cat      *catalog
		proposed stamp
	}{
		{"no catalogue", one, nil, stamp{}},
		{"the roster names none", stamp{}, &catalog{schema: one}, one},
		{"named already", one, &catalog{schema: one}, stamp{}},
		{"looked up since", one, &catalog{schema: two, since: one}, two},
		{"looked up before", two, &catalog{schema: one, since: one}, stamp{}},
		{"looked up while nothing was known", two, &catalog{schema: one}, stamp{}},
		{"provisional", one, &catalog{since: one}, stamp{}},
		{"provisional, and the roster names none", stamp{}, &catalog{}, stamp{}},
	} {
		r.schema.named, *present = c.named, c.cat
		proposed, _ := r.schema.proposes()
		equal(t, c.what, proposed, c.proposed)
	}
}

// The script names a schema only instead of the one that the asker knows.
func TestSchemaIsReplacedInTheRosterOnlyByWhoKnowsIt(t *testing.T) {
	t.Parallel()
	rdb, name := client(t)
	s := &rosterStore{client: rdb, key: name, instance: "one", stay: time.Minute, keep: time.Hour}
	ask := func(schema, replaces stamp) rosterAnswer {
		a, err := s.ask(context.Background(), rosterQuestion{schema: schema, replaces: replaces})
		must(t, err)
		return a
	}
	one, two, three := mint(), mint(), mint()
	equal(t, "at first", ask(stamp{}, stamp{}).schema, stamp{})
	first := ask(one, stamp{})
	equal(t, "named", first.schema, one)
	equal(t, "by one who knows none", ask(two, stamp{}).schema, one)
	again := ask(one, one)
	equal(t, "the token of the same name", again.token, first.token)
	next := ask(two, one)
	equal(t, "by one who knows it", next.schema, two)
	equal(t, "the token is another", next.token != first.token, true)
	equal(t, "by one who knows the one before", ask(three, one).schema, two)
	equal(t, "fields", rdb.HLen(context.Background(), name).Val(), 3) // birth, token, schema
}
