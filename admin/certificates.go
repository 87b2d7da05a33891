package admin

import (
	"fmt"
	"net/http"
	"time"

	"sluice/certificates"
)

// Certificate is an element of the body of /api/certificates.
type Certificate struct {
	UsedBy    string    `json:"used_by"`
	File      string    `json:"file"`
	Kind      string    `json:"kind"`    // certificate, trusted, revoked or ticket_keys
	Trusted   bool      `json:"trusted"` // others are verified with it
	Names     []string  `json:"names"`
	State     string    `json:"state"` // valid, not yet valid, expiring, expired or missing
	ValidFrom time.Time `json:"valid_from"`
	Expires   time.Time `json:"expires"`
	Error     string    `json:"error,omitempty"` // why an earlier version is in use
}

func (h programHandler) certificates(*http.Request) (any, error) {
	now := time.Now()
	all := []Certificate{}
	for _, c := range h.Certificates() {
		d := Certificate{
			UsedBy: c.UsedBy, File: c.File, Kind: c.Kind.String(), Trusted: c.Kind == certificates.KindTrusted, Names: list(c.Names), State: c.State(now).String(),
			ValidFrom: moment(c.Begin), Expires: moment(c.Expires),
		}
		if c.Fault != nil {
			d.Error = c.Fault.Error()
		}
		all = append(all, d)
	}
	return all, nil
}

// certificateProblems describes the certificates that need attention.
func (h programHandler) certificateProblems(now time.Time) (problems []string) {
	for _, c := range h.Certificates() {
		state := c.State(now)
		switch {
		case state == certificates.Missing && c.Fault != nil:
			problems = append(problems, fmt.Sprintf("%s: %s is missing: %v", c.UsedBy, c.File, c.Fault))
			continue
		case state == certificates.Missing:
			problems = append(problems, fmt.Sprintf("%s: %s is missing", c.UsedBy, c.File))
		case state != certificates.Valid:
			problems = append(problems, fmt.Sprintf("%s: %s is %s: valid from %s to %s",
				c.UsedBy, c.File, state, c.Begin.UTC().Format(time.RFC3339), c.Expires.UTC().Format(time.RFC3339)))
		}
		if c.Fault != nil {
			problems = append(problems, fmt.Sprintf("%s: %s: the latest version cannot be used: %v", c.UsedBy, c.File, c.Fault))
		}
	}
	return problems
}
