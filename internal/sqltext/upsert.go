package sqltext

import "slices"

// Upsert is what is known of an "INSERT INTO table (columns) VALUES (…), (…) ON
// CONFLICT …" with one such clause.
type Upsert struct {
	// Nothing: DO NOTHING, so that rows which are there stay as they are.
	Nothing bool
	// Target are the columns of the conflict target, folded as Table is; nil when it
	// is something else, or says more: a constraint, an expression, a collation, a
	// predicate.
	Target []string
	// Keys are the indexes, from 0, of the parameters that are the values of Target's
	// columns: those of the first row, those of the second, and so on. It is nil unless
	// each of these values is a parameter alone, which stands nowhere else in the text.
	Keys []int
	// Sets are the columns that DO UPDATE assigns.
	Sets []string
}

// upsert reads the INSERT whose columns and values begin at token from. It leaves
// Upsert nil when it does not know each word of it.
func (p *parser) upsert(from int) {
	columns, i := p.names(from)
	if columns == nil || p.toks[i].kw != kwValues {
		return
	}
	first := i + 1
	rows := 0
	for i = first; ; i++ {
		end := p.closing(i)
		if end < 0 {
			return
		}
		rows++
		if i = end + 1; p.toks[i].kind != kComma {
			break
		}
	}
	if p.toks[i].kw != kwOn || !p.word(i+1, "CONFLICT") {
		return
	}
	u := &Upsert{}
	u.Target, i = p.names(i + 2)
	if p.toks[i].kw != kwDo {
		u.Target = nil // a constraint, or what more decides what is a conflict
	}
	for ; p.toks[i].kw != kwDo; i++ {
		if k := p.toks[i].kind; k == kEOF || k == kSemi {
			return
		}
	}
	i++
	switch {
	case p.word(i, "NOTHING"):
		u.Nothing = true
	case p.toks[i].kw == kwUpdate && p.toks[i+1].kw == kwSet:
		if u.Sets = p.assigned(i + 2); u.Sets == nil {
			return
		}
	default:
		return
	}
	// SQLite takes several of these clauses, of which others may decide.
	for ; p.toks[i].kind != kEOF; i++ {
		if p.toks[i].kw == kwOn && p.word(i+1, "CONFLICT") {
			return
		}
	}
	if !u.Nothing && u.Target != nil {
		u.Keys = p.upsertKeys(first, rows, columns, u.Target)
	}
	p.st.Upsert = u
}

// names reads a parenthesis that holds names alone and returns the token after it.
func (p *parser) names(i int) (names []string, after int) {
	if p.toks[i].kind != kLParen {
		return nil, i
	}
	for j := i + 1; atName(&p.toks[j]); j += 2 {
		names = append(names, p.ident(&p.toks[j]))
		switch p.toks[j+1].kind {
		case kComma:
		case kRParen:
			return names, j + 2
		default:
			return nil, i
		}
	}
	return nil, i
}

func (p *parser) word(i int, word string) bool {
	return p.toks[i].kind == kWord && isWord(p.src(&p.toks[i]), word)
}

// closing returns the token that closes the parenthesis at i, or -1.
func (p *parser) closing(i int) int {
	if p.toks[i].kind != kLParen {
		return -1
	}
	for depth := 0; p.toks[i].kind != kEOF; i++ {
		switch p.toks[i].kind {
		case kLParen:
			depth++
		case kRParen:
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// assigned reads the columns that the SET assigns whose assignments begin at i; nil
// when one cannot be read.
func (p *parser) assigned(i int) (columns []string) {
	for {
		switch t := &p.toks[i]; {
		case t.kind == kLParen:
			list, end := p.names(i)
			if list == nil {
				return nil
			}
			columns, i = append(columns, list...), end
		case atName(t):
			columns = append(columns, p.ident(t))
			i++
			for k := p.toks[i].kind; k == kLBracket || k == kDot; k = p.toks[i].kind { // a part of it
				for k == kLBracket && p.toks[i].kind != kRBracket && p.toks[i].kind != kEOF {
					i++
				}
				if k == kDot {
					i++
				}
				if p.toks[i].kind == kEOF {
					return nil
				}
				i++
			}
		default:
			return nil
		}
		if p.toks[i].kind != kOp || p.src(&p.toks[i]) != "=" {
			return nil
		}
		for depth := 0; ; i++ {
			switch k := p.toks[i].kind; {
			case k == kLParen || k == kLBracket:
				depth++
			case k == kRParen || k == kRBracket:
				depth--
			case k == kEOF || k == kSemi || depth == 0 && (p.toks[i].kw == kwWhere || p.toks[i].kw == kwReturning):
				return columns
			}
			if depth == 0 && p.toks[i].kind == kComma {
				break
			}
		}
		i++
	}
}

// upsertKeys returns the parameters that the rows from token i on have for the
// columns of the target.
func (p *parser) upsertKeys(i, rows int, columns, target []string) []int {
	keys := make([]int, 0, rows*len(target))
	row := make([]int, len(columns)) // by column its parameter, or -1
	for range rows {
		end := p.closing(i)
		column := 0
		for j := i + 1; j < end; j++ { // at the beginning of a value
			if column == len(row) {
				return nil
			}
			row[column] = -1
			if t := &p.toks[j]; t.kind == kParam && (j+1 == end || p.toks[j+1].kind == kComma) {
				row[column] = int(t.arg)
			}
			column++
			for depth := 0; j < end && (depth > 0 || p.toks[j].kind != kComma); j++ {
				switch p.toks[j].kind {
				case kLParen, kLBracket:
					depth++
				case kRParen, kRBracket:
					depth--
				}
			}
		}
		if column != len(row) {
			return nil
		}
		for _, name := range target {
			at := slices.Index(columns, name)
			if at < 0 || row[at] < 0 {
				return nil
			}
			keys = append(keys, row[at])
		}
		i = end + 2
	}
	// One that stands in two places may have got its type, and with it its value, in
	// the other one.
	times := make(map[int]int, len(keys))
	for j := range p.toks {
		if p.toks[j].kind == kParam {
			times[int(p.toks[j].arg)]++
		}
	}
	if slices.ContainsFunc(keys, func(arg int) bool { return times[arg] != 1 }) {
		return nil
	}
	return keys
}
