package sqltext

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// A list frame folds the elements of one IN list, array or VALUES: an element
// equal to one that was kept before is dropped.
type listFrame struct {
	kind      listKind
	elem      int // where the element at hand begins in the output
	kept      int // where the last kept element ends
	seenBase  int // first of its kept elements in seen
	byNesting int // >0: an ORDER BY or GROUP BY is open at this level
}

type listKind uint8

const (
	plainList  listKind = iota
	foldedList          // elements between parentheses or brackets
	valuesList          // rows after VALUES, without a bracket of their own
)

// maxSeen bounds the different elements remembered of one list, so that folding
// stays linear; a list with more of them keeps the rest as it is.
const maxSeen = 16

type span struct{ start, end int }

type shaper struct {
	p      *parser
	out    []byte
	frames []listFrame
	seen   []span
}

// shape writes the normalised text from the tokens.
func (p *parser) shape() string {
	switch p.st.Operation {
	case Savepoint, RollbackTo, Release:
		if !p.st.Multiple { // their names are made up per transaction
			return map[Operation]string{Savepoint: "SAVEPOINT ?", RollbackTo: "ROLLBACK TO SAVEPOINT ?", Release: "RELEASE SAVEPOINT ?"}[p.st.Operation]
		}
	}
	s := &p.shaper
	s.p, s.out, s.frames, s.seen = p, s.out[:0], append(s.frames[:0], listFrame{}), s.seen[:0]
	toks := p.toks
	last := len(toks) - 1
	for last > 0 && toks[last-1].kind == kSemi {
		last-- // a closing semicolon says nothing
	}
	for i := 0; i < last; {
		i = s.token(i)
	}
	for len(s.frames) > 1 {
		s.closeList()
	}
	if !utf8.Valid(s.out) {
		return strings.ToValidUTF8(string(s.out), "\uFFFD")
	}
	return string(s.out)
}

// token writes the token i and returns the next one to write.
func (s *shaper) token(i int) int {
	toks := s.p.toks
	t := &toks[i]
	if i >= s.p.verbatim {
		if end := s.value(i); end > i {
			s.space(i)
			s.out = append(s.out, '?')
			return end
		}
	}
	switch t.kind {
	case kLParen:
		s.space(i)
		s.out = append(s.out, '(')
		s.openList(i)
		return i + 1
	case kLBracket:
		s.space(i)
		s.out = append(s.out, '[')
		s.openList(i)
		return i + 1
	case kRParen, kRBracket:
		s.endValues()
		s.closeList()
		s.out = append(s.out, s.p.text[t.start])
		if s.top().kind == valuesList && toks[i+1].kind != kComma {
			s.closeList()
		}
		return i + 1
	case kComma:
		if s.top().kind == valuesList && toks[i+1].kind != kLParen {
			s.closeList()
		}
		f := s.top()
		one := f.kind == foldedList && string(s.out[f.elem:]) == "?"
		if folds := s.endElement(); one && folds {
			for k := toks[i+1].kind; (k == kParam || k == kNumber || k == kString) && toks[i+2].kind == kComma; k = toks[i+1].kind {
				i += 2 // another "?", which would be dropped
			}
		}
		s.out = append(s.out, ',', ' ')
		s.top().elem = len(s.out)
		return i + 1
	case kSemi:
		for len(s.frames) > 1 {
			s.closeList()
		}
		s.out = append(s.out, ';')
		return i + 1
	}
	s.space(i)
	src := s.p.src(t)
	switch {
	case t.kind != kWord:
		s.out = append(s.out, src...)
	case t.flags&fSoft == 0 && t.word != 0:
		s.out = append(s.out, keywordList[t.word-1].name...)
	default:
		for j := range len(src) {
			c := src[j]
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			s.out = append(s.out, c)
		}
	}
	if t.kw == kwValues && toks[i+1].kind == kLParen {
		s.out = append(s.out, ' ')
		s.push(valuesList)
	}
	s.ordering(t)
	return i + 1
}

// ordering notes whether an ORDER BY or GROUP BY is open: a bare number there is
// a column's place, not a value.
func (s *shaper) ordering(t *token) {
	if t.kind != kWord {
		return
	}
	switch {
	case t.kw == kwBy:
		s.top().byNesting = 1
	case t.flags&fClause != 0 || t.kw == kwRows:
		s.top().byNesting = 0
	}
}

// value returns the token after the value that begins at i, with its sign and its
// casts, or i when no value begins there.
func (s *shaper) value(i int) int {
	toks := s.p.toks
	j := i
	switch t := &toks[i]; t.kind {
	case kOp:
		if src := s.p.src(t); src != "-" && src != "+" || toks[i+1].kind != kNumber || operandBefore(toks, i) {
			return i
		}
		j = i + 2
	case kNumber:
		if s.ordinal(i) {
			return i
		}
		j++
	case kString, kParam:
		j++
	case kWord:
		if t.kw != kwTrue && t.kw != kwFalse || i > 0 && (toks[i-1].kw == kwIs || toks[i-1].kw == kwNot) {
			return i
		}
		j++
	default:
		return i
	}
	for toks[j].kind == kCast {
		end := typeEnd(s.p.text, toks, j+1)
		if end == j+1 {
			break
		}
		j = end
	}
	return j
}

// ordinal reports whether the number i stands for a column in ORDER BY or GROUP BY.
func (s *shaper) ordinal(i int) bool {
	if s.top().byNesting == 0 || i == 0 {
		return false
	}
	before, after := &s.p.toks[i-1], &s.p.toks[i+1]
	if before.kw != kwBy && before.kind != kComma {
		return false
	}
	switch after.kind {
	case kEOF, kComma, kRParen, kSemi, kWord:
		return true
	}
	return false
}

// operandBefore reports whether a sign at i is binary.
func operandBefore(toks []token, i int) bool {
	if i == 0 {
		return false
	}
	switch t := &toks[i-1]; t.kind {
	case kWord:
		return t.flags&fPrefix == 0
	case kQuoted, kString, kNumber, kParam, kRParen, kRBracket:
		return true
	}
	return false
}

// space writes the blank that belongs before the token i.
func (s *shaper) space(i int) {
	if len(s.out) == 0 {
		return
	}
	switch s.out[len(s.out)-1] {
	case ' ':
		return
	case '(', '[':
		if k := s.p.toks[i-1].kind; k == kLParen || k == kLBracket {
			return
		}
	}
	t, before := &s.p.toks[i], &s.p.toks[i-1]
	switch t.kind {
	case kDot, kCast:
		return
	case kLParen:
		if before.kind == kWord && before.flags&fNoCall == 0 && before.kw != kwAs && s.out[len(s.out)-1] != '?' { // a cast's type is folded
			return
		}
	case kLBracket:
		switch before.kind {
		case kWord:
			if before.flags&fPrefix == 0 {
				return
			}
		case kQuoted, kRParen, kRBracket, kParam, kString, kNumber:
			return
		}
	}
	if before.kind == kDot || before.kind == kCast {
		return
	}
	s.out = append(s.out, ' ')
}

func (s *shaper) top() *listFrame { return &s.frames[len(s.frames)-1] }

func (s *shaper) push(k listKind) {
	s.frames = append(s.frames, listFrame{kind: k, elem: len(s.out), kept: len(s.out), seenBase: len(s.seen)})
}

// openList opens the parenthesis or bracket i, whose first byte is written.
func (s *shaper) openList(i int) {
	toks := s.p.toks
	k := plainList
	if i > 0 {
		switch before := &toks[i-1]; {
		case toks[i].kind == kLParen && before.kw == kwIn && toks[i+1].kw != kwSelect && toks[i+1].kw != kwWith && toks[i+1].kw != kwValues:
			k = foldedList
		case toks[i].kind == kLBracket && (before.kw == kwArray || s.top().kind == foldedList && (before.kind == kComma || before.kind == kLBracket)):
			k = foldedList
		}
	}
	s.push(k)
}

// endElement ends the element at hand and drops it when its like was kept. It
// reports whether the next of its like will be dropped.
func (s *shaper) endElement() bool {
	f := s.top()
	if f.kind == plainList {
		return false
	}
	elem := s.out[f.elem:]
	for _, kept := range s.seen[f.seenBase:] {
		if kept.end-kept.start == len(elem) && bytes.Equal(s.out[kept.start:kept.end], elem) {
			s.out = s.out[:f.kept]
			return true
		}
	}
	f.kept = len(s.out)
	if len(s.seen)-f.seenBase >= maxSeen {
		return false
	}
	s.seen = append(s.seen, span{f.elem, len(s.out)})
	return true
}

func (s *shaper) closeList() {
	if len(s.frames) == 1 {
		return
	}
	s.endElement()
	s.seen = s.seen[:s.top().seenBase]
	s.frames = s.frames[:len(s.frames)-1]
}

// endValues closes VALUES that is still open when its parenthesis closes.
func (s *shaper) endValues() {
	for s.top().kind == valuesList {
		s.closeList()
	}
}
