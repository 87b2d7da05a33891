package compression

import "bytes"

// An Accept is the parsed Accept-Encoding fields of a request. The zero value stands for
// a request without the field.
type Accept struct {
	weights [encodings]weight
	any     weight // of "*"
}

// A weight is a qvalue in thousandths, plus 1; 0: it is not given.
type weight uint16

// Add adds the value of a field. Malformed elements are ignored. Of several elements with
// one coding, the first counts.
func (a *Accept) Add(value []byte) {
	for len(value) > 0 {
		var element []byte
		element, value, _ = bytes.Cut(value, comma)
		coding, parameter, weighted := bytes.Cut(element, semicolon)
		w := weight(1 + 1000)
		if weighted {
			w = parseWeight(bytes.Trim(parameter, " \t"))
		}
		if to := a.of(bytes.Trim(coding, " \t")); to != nil && *to == 0 {
			*to = w
		}
	}
}

var comma, semicolon = []byte(","), []byte(";")

// of returns the weight of a coding; nil: it is unknown.
func (a *Accept) of(coding []byte) *weight {
	switch {
	case len(coding) == 1 && coding[0] == '*':
		return &a.any
	case bytes.EqualFold(coding, xGzip): // RFC 9110, section 8.4.1.3
		return &a.weights[Gzip]
	}
	for e, name := range encodingNames {
		if len(coding) == len(name) && bytes.EqualFold(coding, []byte(name)) { // does not allocate
			return &a.weights[e]
		}
	}
	return nil
}

var xGzip = []byte("x-gzip")

// parseWeight parses "q=" with a qvalue. It returns 0 if it is malformed.
func parseWeight(parameter []byte) weight {
	if len(parameter) < len("q=0") || parameter[0]|0x20 != 'q' || parameter[1] != '=' {
		return 0
	}
	whole, digits := parameter[2], parameter[3:]
	if whole != '0' && whole != '1' || len(digits) > len(".000") || len(digits) > 0 && digits[0] != '.' {
		return 0
	}
	w, unit := 1000*weight(whole-'0'), weight(100)
	for _, c := range digits[min(1, len(digits)):] {
		if c < '0' || c > '9' {
			return 0
		}
		w += unit * weight(c-'0')
		unit /= 10
	}
	if w > 1000 {
		return 0
	}
	return 1 + w
}

// Choose returns the coding with the highest weight, of equal ones the first in order;
// Identity: the client accepts none of them, or prefers identity.
func (a *Accept) Choose(order []Encoding) Encoding {
	best, most := Identity, weight(1)
	for _, e := range order {
		if w := a.weightOf(e); w > most {
			best, most = e, w
		}
	}
	if a.weightOf(Identity) > most {
		return Identity
	}
	return best
}

func (a *Accept) weightOf(e Encoding) weight {
	if w := a.weights[e]; w > 0 {
		return w
	}
	return a.any
}
