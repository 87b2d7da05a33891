package certificates

import (
	"time"

	"github.com/rs/zerolog"
)

// warningEvery is the time between two warnings about the same certificate.
const warningEvery = 24 * time.Hour

// Use is a use of certificates.
type Use struct {
	User string // for people: `listener "web"`
	Source
}

// LogChanges returns what logs changes of certificates, with a field that says which.
func LogChanges(field, value string, log zerolog.Logger) func(error) {
	return func(err error) {
		if err != nil {
			log.Warn().Str(field, value).Err(err).Msg("changed certificates cannot be used: the previous ones stay in use")
			return
		}
		log.Info().Str(field, value).Msg("the certificates have changed: new connections use them")
	}
}

// Statuses returns the state of the certificates of uses.
func Statuses(uses []Use) (all []Usage) {
	for _, use := range uses {
		for _, status := range use.Statuses() {
			all = append(all, Usage{UsedBy: use.User, Status: status})
		}
	}
	return all
}

// haveState are what has a state, for people.
var haveState = map[Kind]string{KindCertificate: "a certificate is", KindTrusted: "a certificate is", KindRevocations: "a list of revoked certificates is"}

// Warnings are about certificates that are not valid or expire soon: the times of the last ones.
type Warnings map[string]time.Time

// Log logs the warnings that are due.
func (w Warnings) Log(all []Usage, now time.Time, log zerolog.Logger) {
	for _, c := range all {
		state := c.State(now)
		key := c.UsedBy + c.File + state.String() + c.Expires.String()
		if state == Valid || c.Told || now.Sub(w[key]) < warningEvery {
			continue
		}
		w[key] = now
		event := log.Warn()
		if state == Expired {
			event = log.Error()
		}
		event.Str("used_by", c.UsedBy).Str("file", c.File).Strs("names", c.Names)
		if state != Missing {
			event.Time("valid_from", c.Begin).Time("expires", c.Expires)
		}
		event.Msgf("%s %s", haveState[c.Kind], state)
	}
}
