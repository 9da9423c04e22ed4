package sqltext

import (
	"strings"
	"unicode/utf8"
)

// Classes of bytes. Bytes above 0x7F are letters, as in Postgres.
const (
	cBad uint8 = iota
	cSpace
	cLetter
	cDigit
	cOp
	cOne // a token by itself
	cOther
)

var class = func() (t [256]uint8) {
	for _, c := range " \t\n\r\f\v" {
		t[c] = cSpace
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = cLetter, cLetter
	}
	t['_'] = cLetter
	for c := 0x80; c < 256; c++ {
		t[c] = cLetter
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = cDigit
	}
	for _, c := range "+-*/<>=~!@#%^&|" {
		t[c] = cOp
	}
	for _, c := range "()[],;" {
		t[c] = cOne
	}
	for _, c := range "'\"`$.:?" {
		t[c] = cOther
	}
	return t
}()

var oneKind = [256]kind{'(': kLParen, ')': kRParen, '[': kLBracket, ']': kRBracket, ',': kComma, ';': kSemi}

// scanner turns a text into tokens, in one pass and without going back.
type scanner struct {
	text     string
	toks     []token
	brackets int
	params   int32 // "?" seen
	escapes  bool  // the last string token was E''
	ok       bool  // nothing unreadable so far
}

// scan appends the tokens of text and a closing kEOF to toks. It reports false
// when text is no SQL: invalid UTF-8, a control character, something unterminated.
// The tokens then still cover the text.
func scan(text string, toks []token) ([]token, bool) {
	if n := len(text) / 8; n > 1<<10 && cap(toks) < n {
		toks = make([]token, 0, n) // most long texts have more
	}
	s := scanner{text: text, toks: toks, ok: utf8.ValidString(text)}
	for i := 0; i < len(text); {
		c := text[i]
		switch class[c] {
		case cSpace:
			i++
		case cLetter:
			i = s.word(i)
		case cDigit:
			i = s.number(i)
		case cOne:
			switch c {
			case '[':
				s.brackets++
			case ']':
				s.brackets--
			}
			s.add(oneKind[c], i, i+1)
			i++
		case cOp:
			i = s.operator(i)
		case cOther:
			i = s.other(i)
		default:
			s.ok = false
			s.add(kOp, i, i+1)
			i++
		}
	}
	s.add(kEOF, len(text), len(text))
	return s.toks, s.ok
}

func (s *scanner) add(k kind, start, end int) *token {
	if n := len(s.toks); n > 0 && s.toks[n-1].kind == kMaybe {
		s.settle(&s.toks[n-1], k)
	}
	s.toks = append(s.toks, token{start: int32(start), end: int32(end), kind: k})
	return &s.toks[len(s.toks)-1]
}

// settle decides a "?" that stands after an operand: before another operand it is
// Postgres' operator, otherwise a parameter.
func (s *scanner) settle(t *token, next kind) {
	switch next {
	case kString, kNumber, kParam, kQuoted, kWord, kLParen:
		t.kind = kOp
	default:
		t.kind, t.arg = kParam, s.params
		s.params++
	}
}

// afterOperand reports whether the last token ends an operand.
func (s *scanner) afterOperand() bool {
	if len(s.toks) == 0 {
		return false
	}
	switch t := &s.toks[len(s.toks)-1]; t.kind {
	case kWord:
		return t.flags&(fPrefix|fValue) == 0
	case kQuoted, kString, kNumber, kParam, kRParen, kRBracket:
		return true
	}
	return false
}

func (s *scanner) word(i int) int {
	text, start := s.text, i
	i++
	for i < len(text) && (class[text[i]] == cLetter || class[text[i]] == cDigit || text[i] == '$') {
		i++
	}
	if i < len(text) && i == start+1 {
		switch c := text[start] | 0x20; {
		case text[i] == '\'' && (c == 'e' || c == 'b' || c == 'x' || c == 'n'):
			return s.string(start, i, c == 'e')
		case text[i] == '&' && c == 'u' && i+1 < len(text) && text[i+1] == '\'':
			return s.string(start, i+1, false)
		case text[i] == '&' && c == 'u' && i+1 < len(text) && text[i+1] == '"':
			return s.quoted(start, i+1)
		}
	}
	last := kEOF
	if n := len(s.toks); n > 0 {
		last = s.toks[n-1].kind
	}
	if last == kQuoted && isWord(text[start:i], "UESCAPE") {
		s.ok = false // see quoted
	}
	t := s.add(kWord, start, i)
	if last == kDot {
		return i
	}
	if w := lookup(text[start:i]); w != 0 {
		t.word, t.kw, t.flags = w, keywordList[w-1].kw, keywordList[w-1].flags
	}
	return i
}

func (s *scanner) number(i int) int {
	text, start := s.text, i
	if text[i] == '0' && i+1 < len(text) && strings.IndexByte("xXoObB", text[i+1]) >= 0 {
		for i += 2; i < len(text) && (class[text[i]] == cDigit || class[text[i]] == cLetter && text[i] < 0x80); {
			i++
		}
		s.add(kNumber, start, i)
		return i
	}
	digits := func() {
		for i < len(text) && (class[text[i]] == cDigit || text[i] == '_') {
			i++
		}
	}
	digits()
	if i < len(text) && text[i] == '.' && (i+1 >= len(text) || text[i+1] != '.') {
		i++
		digits()
	}
	if i < len(text) && text[i]|0x20 == 'e' {
		j := i + 1
		if j < len(text) && (text[j] == '+' || text[j] == '-') {
			j++
		}
		if j < len(text) && class[text[j]] == cDigit {
			i = j
			digits()
		}
	}
	s.add(kNumber, start, i)
	return i
}

// string reads from the opening quote at i; the literal's prefix begins at start.
func (s *scanner) string(start, i int, escapes bool) int {
	text := s.text
	// 'a' and 'b' on the next line are one literal, escapes as in the first.
	joined := false
	if n := len(s.toks); n > 0 && s.toks[n-1].kind == kString && start == i {
		joined, escapes = true, s.escapes
	}
	s.escapes = escapes
	for i++; ; i++ {
		if i >= len(text) {
			s.ok = false
			break
		}
		if text[i] == '\\' && escapes {
			i++
			continue
		}
		if text[i] == '\'' {
			i++
			if i < len(text) && text[i] == '\'' {
				continue
			}
			break
		}
	}
	i = min(i, len(text))
	if joined {
		s.toks[len(s.toks)-1].end = int32(i)
	} else {
		s.add(kString, start, i)
	}
	return i
}

// quoted reads an identifier from the opening quote at i.
func (s *scanner) quoted(start, i int) int {
	text, q := s.text, s.text[i]
	for i++; i < len(text); i++ {
		if text[i] == q {
			if i+1 < len(text) && text[i+1] == q {
				i++
				continue
			}
			s.add(kQuoted, start, i+1)
			if text[start] != q && strings.IndexByte(text[start:i], '\\') >= 0 {
				s.ok = false // U&"d\0061ta" names another table than it seems to
			}
			return i + 1
		}
	}
	s.ok = false
	s.add(kString, start, len(text)) // its rest may hold values: fold it
	return len(text)
}

func (s *scanner) operator(i int) int {
	text, start := s.text, i
	if text[i] == '-' && i+1 < len(text) && text[i+1] == '-' {
		if n := strings.IndexAny(text[i:], "\n\r"); n >= 0 { // a lone \r ends it too
			return i + n
		}
		return len(text)
	}
	if text[i] == '/' && i+1 < len(text) && text[i+1] == '*' {
		return s.comment(i)
	}
	special := false
	for i < len(text) {
		c := text[i]
		if c == '?' && i == start+1 && text[start] == '@' {
			special = true
			i++
			continue
		}
		if class[c] != cOp || i > start && i+1 < len(text) && (c == '-' && text[i+1] == '-' || c == '/' && text[i+1] == '*') {
			break
		}
		special = special || strings.IndexByte("~!@#%^&|", c) >= 0
		i++
	}
	// Only an operator with one of these characters may end in a sign: "=-1" is "="
	// and "-". The signs that follow it stand alone.
	end := i
	for !special && end > start+1 && (text[end-1] == '+' || text[end-1] == '-') {
		end--
	}
	s.add(kOp, start, end)
	for ; end < i; end++ {
		s.add(kOp, end, end+1)
	}
	return i
}

func (s *scanner) comment(i int) int {
	text, depth := s.text, 0
	if rest := text[i+2:]; strings.HasPrefix(rest, "!") || strings.HasPrefix(rest, "M!") {
		s.ok = false // MySQL or MariaDB runs what stands inside
	}
	for ; i < len(text); i++ {
		if i+1 < len(text) && text[i] == '/' && text[i+1] == '*' {
			depth++
			i++
		} else if i+1 < len(text) && text[i] == '*' && text[i+1] == '/' {
			i++
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	s.ok = false
	return len(text)
}

func (s *scanner) other(i int) int {
	text := s.text
	next := byte(0)
	if i+1 < len(text) {
		next = text[i+1]
	}
	switch text[i] {
	case '\'':
		return s.string(i, i, false)
	case '"', '`':
		return s.quoted(i, i)
	case '$':
		return s.dollar(i, next)
	case '?':
		return s.question(i, next)
	case '.':
		if class[next] == cDigit {
			return s.number(i)
		}
		if n := len(s.toks); n > 0 && s.toks[n-1].kind == kWord {
			t := &s.toks[n-1]
			t.kw, t.flags, t.word = kwNone, 0, 0
		}
		s.add(kDot, i, i+1)
		return i + 1
	}
	// ':'
	switch {
	case next == ':':
		s.add(kCast, i, i+2)
		return i + 2
	case next == '=':
		s.add(kOp, i, i+2)
		return i + 2
	case s.brackets <= 0 && (class[next] == cLetter || class[next] == cDigit):
		return s.named(i)
	}
	s.add(kColon, i, i+1)
	return i + 1
}
