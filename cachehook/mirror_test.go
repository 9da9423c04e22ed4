package cachehook

import (
	"fmt"
	"testing"
)

// An answer of Redis must not be learned when anything touched the tag since
// the question.
func TestMirrorDropsAnswersThatWereOvertaken(t *testing.T) {
	t.Parallel()
	for what, touch := range map[string]func(*mirror, *cell){
		"a message":        func(m *mirror, c *cell) { m.forgetTag(c.tag) },
		"an own write":     func(m *mirror, c *cell) { m.forget(c) },
		"a subscription":   func(m *mirror, c *cell) { m.flush() },
		"another's answer": func(m *mirror, c *cell) { m.learn(c, m.ask(c), mint()); m.forget(c) },
	} {
		m := newMirror(false)
		c := m.cell("t", true)
		q := m.ask(c)
		touch(m, c)
		m.learn(c, q, mint())
		if s, known := m.present(c); known {
			t.Errorf("%s: learned %v", what, s)
		}
	}
}

// Two questions are under way at once, and Redis bumps the tag between them. In
// whatever order their answers come, the older stamp is not known afterwards.
func TestMirrorKnowsNeitherOfTwoAnswersThatContradict(t *testing.T) {
	t.Parallel()
	m := newMirror(false)
	c := m.cell("t", true)
	older, newer := mint(), mint()
	for what, answers := range map[string][2]stamp{"older first": {older, newer}, "newer first": {newer, older}} {
		m.forget(c)
		q1, q2 := m.ask(c), m.ask(c)
		m.learn(c, q1, answers[0])
		m.learn(c, q2, answers[1])
		if s, known := m.present(c); known {
			t.Errorf("%s: knows %v", what, s)
		}
		m.forget(c)
		q1, q2 = m.ask(c), m.ask(c)
		m.learn(c, q1, newer)
		m.learn(c, q2, newer)
		s, known := m.present(c)
		equal(t, "known when both agree", known, true)
		equal(t, "stamp", s, newer)
	}
	// The tag was known, and one of two answers says otherwise.
	m.forget(c)
	m.learn(c, m.ask(c), older)
	q1, q2 := m.ask(c), m.ask(c)
	m.learn(c, q1, newer)
	m.learn(c, q2, older)
	if s, known := m.present(c); known {
		t.Errorf("known before: knows %v", s)
	}
}

func TestMirrorLearns(t *testing.T) {
	t.Parallel()
	m := newMirror(false)
	c := m.cell("t", true)
	s := mint()
	m.learn(c, m.ask(c), s)
	got, known := m.present(c)
	equal(t, "known", known, true)
	equal(t, "stamp", got, s)
	m.flush()
	_, known = m.present(c)
	equal(t, "known after a flush", known, false)
}

// An evicted cell hears no messages, so that nothing may be learned in it.
func TestMirrorEvictedCellsAreDead(t *testing.T) {
	t.Parallel()
	m := newMirror(false)
	held := make([]*cell, 0, 3*maxLoose*mirrorShards)
	for i := range cap(held) {
		held = append(held, m.cell(fmt.Sprint(i), false))
	}
	dead := 0
	for i, c := range held {
		m.learn(c, m.ask(c), mint())
		_, known := m.present(c)
		same := m.cell(fmt.Sprint(i), false) == c
		if known != same && known {
			t.Fatal("a cell that is not in the mirror counts as known")
		}
		if !known {
			dead++
		}
	}
	if dead < maxLoose*mirrorShards {
		t.Fatalf("%d of %d were evicted", dead, len(held))
	}
	if c := m.cell("table:x", true); m.cell("table:x", false) != c {
		t.Fatal("a pinned cell was replaced")
	}
}
