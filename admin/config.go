package admin

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/config"
	"sluice/config/decoding"
	"sluice/config/live"
	"sluice/config/reference"
	"sluice/docs"
	"sluice/observe/panics"
	"sluice/operator"
)

// Revision is an applied configuration.
type Revision struct {
	Number  uint64          `json:"number"` // never used twice with the same history
	Time    time.Time       `json:"time"`
	Source  string          `json:"source"` // the file, or "command line"
	Hash    string          `json:"hash"`   // canonical: equal on replicas with the same documents
	Reason  string          `json:"reason"`
	Sources []SourceInUse   `json:"sources"`
	Pending []string        `json:"pending"`
	Changes []config.Change `json:"changes"` // from the revision before, secrets masked
	Given   bool            `json:"given"`   // only a share has changed, by a judge or an operator
}

// SourceInUse is a source of documents in a revision.
type SourceInUse struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	Revision string `json:"revision"` // the source's own: a hash of files, an index of Consul
	Pinned   uint64 `json:"pinned"`   // the revision that a rollback uses; 0: none, the latest
}

// Source is the present state of a source of documents.
type Source struct {
	SourceInUse
	State   string    `json:"state"`   // in_use, pinned, refused, stale; waiting: never read
	Offered string    `json:"offered"` // the source's revision of its documents; empty: not known
	Since   time.Time `json:"since"`   // of State; for the file that can be read, the year 1
	Errors  []string  `json:"errors"`
}

// AppliedConfig is the body of /api/config.
type AppliedConfig struct {
	Revision
	Config  *config.Config `json:"config"` // as in the file, with defaults; secrets masked
	Reloads Reloads        `json:"reloads"`
	States  []Source       `json:"states"` // of the sources now
}

// RevisionConfig is the body of /api/config/history/{number}.
type RevisionConfig struct {
	Revision
	Config *config.Config `json:"config"`
}

// Reloads counts loaded configurations.
type Reloads struct {
	Applied   uint64   `json:"applied"`
	Refused   uint64   `json:"refused"`
	LastError *Refusal `json:"last_error"` // null if the latest load was not refused
}

// Refusal is the error of the latest load.
type Refusal struct {
	Time   time.Time `json:"time"`
	Source string    `json:"source"`
	Errors []string  `json:"errors"`
}

func describeRevision(r config.Revision) Revision {
	return Revision{r.Number, moment(r.Time), r.Source, r.Hash, r.Reason, each(r.Sources, describeSource), list(r.Pending), list(r.Diff), r.OnlyShares}
}

func describeSource(s config.Source) SourceInUse {
	d := SourceInUse{Name: s.Name, Kind: s.Kind, Revision: s.Revision}
	if s.Pin != nil {
		d.Pinned = s.Pin.Number
	}
	return d
}

func describeStatus(s live.Status) Source {
	d := Source{SourceInUse: describeSource(s.Source), Offered: s.Offered, Since: moment(s.Since), State: string(s.State()), Errors: []string{}}
	if s.Refused != nil {
		d.Errors = linesOf(s.Refused.Err)
		if s.Stale == nil {
			d.Since = moment(s.Refused.Time)
		}
	}
	if s.Stale != nil {
		d.Errors = append(d.Errors, linesOf(s.Stale)...)
	}
	return d
}

// linesOf returns the texts of an error and of the others that it joins.
func linesOf(err error) []string {
	if several, ok := errors.AsType[config.Errors](err); ok {
		return each(several, (*config.Error).Error)
	}
	return []string{err.Error()}
}

func describeReloads(r config.Reloads, sources []live.Status) Reloads {
	d := Reloads{Applied: r.Applied, Refused: r.Refused}
	var latest time.Time
	for _, s := range sources {
		if refused := s.Refused; refused != nil && refused.Time.After(latest) {
			latest = refused.Time
			d.LastError = &Refusal{moment(latest), s.Source.Name, linesOf(refused.Err)}
		}
	}
	return d
}

// configHandler answers about the configuration and its documents.
type configHandler struct{ Options }

// config answers /api/config. ?brief=true leaves out services and routes.
func (h configHandler) config(w http.ResponseWriter, r *http.Request) {
	current := h.History().Current()
	w.Header().Set("ETag", `"`+current.Hash+`"`)
	if r.URL.Query().Get("brief") == "true" && current.Config != nil {
		brief := *current.Config
		brief.Services, brief.Routes = nil, nil
		current.Config = &brief
	}
	sources := h.Statuses()
	writeJSON(w, http.StatusOK, AppliedConfig{
		Revision: describeRevision(current),
		Config:   current.Config,
		Reloads:  describeReloads(h.History().Reloads(), sources),
		States:   each(sources, describeStatus),
	})
}

// Value is an element of /api/config/values.
type Value struct {
	config.Value
	Meaning string `json:"meaning,omitempty"` // of the key, in Markdown; its links are relative to /docs/
}

// values answers /api/config/values with the values in use: ?service= with those of a service,
// ?brief=true without those of services and routes, ?explain=true with their meanings.
func (h configHandler) values(r *http.Request) (any, error) {
	current := h.History().Current()
	built, err := h.Rebuild(current)
	if err != nil {
		return nil, refuse(http.StatusConflict, "the configuration in use cannot be built again: %w", err)
	}
	query := r.URL.Query()
	service := query.Get("service")
	values, err := built.Values(service, h.Effective())
	if err != nil {
		return nil, refusal{err, http.StatusNotFound}
	}
	if query.Get("brief") == "true" {
		values = slices.DeleteFunc(values, func(v config.Value) bool {
			return strings.HasPrefix(v.Key, "services.") || strings.HasPrefix(v.Key, "routes[")
		})
	}
	meaningOf := func(string) string { return "" }
	if query.Get("explain") == "true" {
		meaningOf = reference.Meanings(reference.Rows(docs.Configuration))
	}
	return each(values, func(v config.Value) Value {
		key := v.Key
		if rest, below := strings.CutPrefix(key, decoding.Join("services", service)+"."); below {
			key = "services.NAME." + rest // the name may have dots
		}
		return Value{v, meaningOf(key)}
	}), nil
}

func (h configHandler) history(*http.Request) (any, error) {
	return each(h.History().Revisions(), describeRevision), nil
}

func (h configHandler) numbered(r *http.Request) (any, error) {
	revision, err := h.revision(r.PathValue("number"))
	return RevisionConfig{describeRevision(revision), revision.Config}, err
}

// diff answers /api/config/diff/{from}/{to} with the differences.
func (h configHandler) diff(r *http.Request) (any, error) {
	from, err := h.revision(r.PathValue("from"))
	if err != nil {
		return nil, err
	}
	to, err := h.revision(r.PathValue("to"))
	if err != nil {
		return nil, err
	}
	return list(config.Diff(from.Config, to.Config)), nil
}

func (h configHandler) revision(number string) (config.Revision, error) {
	n, err := strconv.ParseUint(number, 10, 64)
	revision, kept := h.History().Revision(n)
	if err != nil || !kept {
		return revision, refuse(http.StatusNotFound, "no revision %q", number)
	}
	if revision.Config == nil { // of an earlier process
		built, err := h.Rebuild(revision)
		if err != nil {
			return revision, refuse(http.StatusConflict, "revision %d is not valid any more: %w", n, err)
		}
		revision.Config = built.Config
	}
	return revision, nil
}

// rollback answers POST /api/config/rollback?number=N with the new revision. ?why= is kept
// with it. The field If-Match has the hash of the configuration that the client has seen
// (RFC 9110, section 13.1.1; without it 428 of RFC 6585).
func (h configHandler) rollback(w http.ResponseWriter, r *http.Request) {
	revision, err := h.rollBack(r)
	if err != nil {
		writeFailure(w, err)
		return
	}
	w.Header().Set("ETag", `"`+revision.Hash+`"`)
	writeJSON(w, http.StatusOK, describeRevision(revision))
}

func (h configHandler) rollBack(r *http.Request) (config.Revision, error) {
	number, err := strconv.ParseUint(r.URL.Query().Get("number"), 10, 64)
	if err != nil {
		return config.Revision{}, refuse(http.StatusBadRequest, "number: want the number of a revision")
	}
	if err := checkTexts(r, "why"); err != nil {
		return config.Revision{}, err
	}
	match, why := r.Header.Get("If-Match"), r.URL.Query().Get("why")
	if match == "" {
		return config.Revision{}, refuse(http.StatusPreconditionRequired, `If-Match: want the hash of the configuration in use, in quotes, from /api/config`)
	}
	revision, err := h.RollBack(r.Context(), number, strings.Trim(strings.TrimSpace(match), `"`), why)
	if err == nil {
		h.Log.Info().Uint64("number", number).Uint64("revision", revision.Number).Str("client", r.RemoteAddr).Str("why", why).Msg("an operator's rollback")
		return revision, nil
	}
	for known, status := range rollbackStatus {
		if errors.Is(err, known) {
			return revision, refusal{err, status}
		}
	}
	if errors.Is(err, operator.ErrTakeover) {
		return revision, err
	}
	return revision, refusal{err, http.StatusServiceUnavailable}
}

// rollbackStatus has the statuses of errors of a rollback.
var rollbackStatus = map[error]int{
	live.ErrNoRevision: http.StatusNotFound,
	live.ErrChanged:    http.StatusPreconditionFailed,
	live.ErrInvalid:    http.StatusUnprocessableEntity,
	live.ErrNoHistory:  http.StatusConflict,
	panics.Err:         http.StatusInternalServerError,
}
