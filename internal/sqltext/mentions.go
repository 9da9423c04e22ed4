package sqltext

import "strings"

const operatorChars = "+-*/<>=~!@#%^&|`?"

// Mentions reports whether name may stand in the text: as a word in any case,
// quoted or not, or, when it begins with a character of operators, within an
// operator. It looks into literals and comments too, so that it never reports
// false for a text that names it. Its cost is linear in the text.
func (s *Statement) Mentions(name string) bool {
	if name == "" {
		return true
	}
	text, name := strings.ToLower(s.text), strings.ToLower(name)
	if strings.Contains(text, `u&"`) { // names by code points
		return true
	}
	if strings.IndexByte(operatorChars, name[0]) >= 0 {
		return strings.Contains(text, name)
	}
	quoted := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	if strings.Contains(text, quoted) {
		return true
	}
	for from := 0; ; {
		i := strings.Index(text[from:], name)
		if i < 0 {
			return false
		}
		i += from
		end := i + len(name)
		if (i == 0 || !wordByte(text[i-1])) && (end == len(text) || !wordByte(text[end])) {
			return true
		}
		from = i + 1
	}
}

func wordByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '_' || b == '$' || b >= 0x80
}
