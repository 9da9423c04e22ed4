package sqltext

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
)

func TestAnalyzeRemembers(t *testing.T) { // not parallel: it counts allocations
	m := newMemo()
	text := "SELECT * FROM users WHERE id = $1"
	first := m.analyze(text)
	if again := m.analyze(strings.Clone(text)); again != first {
		t.Error("a known text was read anew")
	}
	if !reflect.DeepEqual(first, Parse(text)) {
		t.Error("Analyze and Parse differ")
	}
	// Out of the front, and still behind it.
	for i := range m.front {
		m.front[i].Store(nil)
	}
	if again := m.analyze(text); again != first {
		t.Error("a text was forgotten with the front")
	}
	if got := testing.AllocsPerRun(100, func() { m.analyze(text) }); got != 0 {
		t.Errorf("a known text costs %v allocations", got)
	}
	long := "SELECT '" + strings.Repeat("x", maxMemoText) + "'"
	if m.analyze(long) == m.analyze(long) {
		t.Error("a text above maxMemoText is kept")
	}
	if Analyze(text) != Analyze(text) {
		t.Error("Analyze does not remember")
	}
}

// Many goroutines fill the memo with more than it may hold, by number and by size.
func TestMemoIsBoundedUnderConcurrency(t *testing.T) {
	t.Parallel()
	m := newMemo()
	common := make([]*Statement, 100)
	for i := range common {
		common[i] = Parse(fmt.Sprintf("SELECT * FROM common_%d WHERE id = $1", i))
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(g)))
			for i := range 3000 {
				var text string
				switch rnd.IntN(3) {
				case 0: // new, short
					text = fmt.Sprintf("SELECT a FROM t_%d_%d", g, i)
				case 1: // new, long: 100 KiB of parameters
					if i%10 != 0 {
						continue
					}
					text = fmt.Sprintf("SELECT a FROM t_%d_%d WHERE id IN (%s$1)", g, i, strings.Repeat("$1, ", 10<<10+rnd.IntN(10<<10)))
				case 2:
					text = common[rnd.IntN(len(common))].text
				}
				st := m.analyze(text)
				if st.text != text || st.Operation != Select || len(st.Reads) != 1 || !strings.Contains(text, st.Reads[0].Name) {
					t.Errorf("%s has the answer of %s", abridged(text), abridged(st.text))
				}
			}
		})
	}
	wg.Wait()
	entries, total := 0, 0
	for i := range m.shards {
		sh := &m.shards[i]
		sum := 0
		for _, s := range sh.lru.Values() {
			sum += s.size()
		}
		if sum != sh.bytes || sh.bytes > shardBytes || sh.lru.Len() > shardEntries {
			t.Errorf("shard %d: %d entries of %d bytes, counted %d", i, sh.lru.Len(), sum, sh.bytes)
		}
		entries, total = entries+sh.lru.Len(), total+sum
	}
	if entries < 1000 || total < shardBytes {
		t.Errorf("only %d entries of %d bytes are kept", entries, total)
	}
	for i := range m.front {
		if s := m.front[i].Load(); s != nil && len(s.text) > frontMaxText {
			t.Errorf("the front pins a text of %d bytes", len(s.text))
		}
	}
}

// A single text that is larger than a shard does not empty it for good.
func TestMemoKeepsCountingAfterLargeTexts(t *testing.T) {
	t.Parallel()
	sh := &newMemo().shards[0]
	for i := range 100 {
		sh.add(&Statement{text: fmt.Sprint(i), Shape: strings.Repeat("x", shardBytes)})
		sh.add(&Statement{text: fmt.Sprint(i)})
		if sh.lru.Len() != 1 {
			t.Fatalf("%d entries of %d bytes", sh.lru.Len(), sh.bytes)
		}
	}
	sh.add(&Statement{text: "small"})
	if sh.lru.Len() != 1 || sh.bytes != (&Statement{text: "small"}).size() {
		t.Errorf("%d entries, counted %d bytes", sh.lru.Len(), sh.bytes)
	}
}
