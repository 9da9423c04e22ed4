package sqltext

import "strings"

// named reads the rest of a parameter that has a name after its first byte.
func (s *scanner) named(i int) int {
	start := i
	for i++; i < len(s.text) && (class[s.text[i]] == cLetter || class[s.text[i]] == cDigit); {
		i++
	}
	s.add(kParam, start, i).arg = -1
	return i
}

func (s *scanner) dollar(i int, next byte) int {
	text, start := s.text, i
	if class[next] == cDigit {
		n, _ := int32(0), i
		for i++; i < len(text) && class[text[i]] == cDigit; i++ {
			n = min(n*10+int32(text[i]-'0'), 1<<20)
		}
		s.add(kParam, start, i).arg = n - 1
		return i
	}
	j := i + 1
	for j < len(text) && (class[text[j]] == cLetter || class[text[j]] == cDigit) {
		j++
	}
	if j >= len(text) || text[j] != '$' {
		if j > i+1 {
			return s.named(i) // SQLite's $name
		}
		s.ok = false
		s.add(kOp, i, i+1)
		return i + 1
	}
	tag := text[i : j+1]
	n := strings.Index(text[j+1:], tag)
	if n < 0 {
		s.ok = false
		s.add(kString, start, len(text))
		return len(text)
	}
	end := j + 1 + n + len(tag)
	s.add(kString, start, end)
	s.escapes = false
	return end
}

// question reads a "?", which is a parameter in SQLite and MySQL and begins
// operators in Postgres. Where an operand stands before it, what follows decides.
func (s *scanner) question(i int, next byte) int {
	operator := next == '|' || next == '&'
	if n := len(s.toks); !s.afterOperand() && !(operator && n > 0 && s.toks[n-1].kind == kMaybe) {
		if n > 0 && s.toks[n-1].kind == kMaybe {
			s.settle(&s.toks[n-1], kParam)
		}
		t := s.add(kParam, i, i+1)
		if class[next] != cDigit {
			t.arg = s.params
			s.params++
			return i + 1
		}
		n := int32(0)
		for i++; i < len(s.text) && class[s.text[i]] == cDigit; i++ {
			n = min(n*10+int32(s.text[i]-'0'), 1<<20)
		}
		t.arg, t.end = n-1, int32(i)
		return i
	}
	end := i + 1
	if operator {
		end++
		s.add(kOp, i, end)
		return end
	}
	s.add(kMaybe, i, end)
	return end
}
