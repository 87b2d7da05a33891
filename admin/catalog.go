package admin

import (
	"net/http"
	"slices"
	"time"

	consulsource "sluice/discovery/consul"
	"sluice/tags"
)

// Catalog is the body of /api/catalog.
type Catalog struct {
	State       string         `json:"state"` // pending, fresh, stale
	Since       time.Time      `json:"since"` // start of State
	Index       uint64         `json:"index"`
	LastSuccess *time.Time     `json:"last_success"` // null: never
	LastChange  *time.Time     `json:"last_change"`  // null: never
	LastError   string         `json:"last_error"`   // of the last query; empty if it was answered
	Services    []FoundService `json:"services"`
}

// FoundService is a service of Consul's catalog.
type FoundService struct {
	Service   string   `json:"service"`   // Consul's name for it
	Tags      []string `json:"tags"`      // of all its instances
	Probation bool     `json:"probation"` // not listed any more
}

func (h serviceHandler) catalog(*http.Request) (any, error) {
	s, ok := h.Catalog()
	if !ok {
		return nil, refuse(http.StatusNotFound, "the configuration has no catalog")
	}
	return Catalog{
		State:       s.State.String(),
		Since:       moment(s.Since),
		Index:       s.Index,
		LastSuccess: optionalMoment(s.LastSuccess),
		LastChange:  optionalMoment(s.LastChange),
		LastError:   s.LastError,
		Services: each(s.Services, func(found consulsource.CatalogService) FoundService {
			return FoundService{found.Name, each(found.Tags, tags.Masked), slices.Contains(s.Probation, found.Name)}
		}),
	}, nil
}
