package admin

import "net/http"

// Route is an element of /api/routes.
type Route struct {
	Host    string `json:"host"` // empty: any
	Path    string `json:"path"`
	Service string `json:"service"`
}

func (h *handler) routes(w http.ResponseWriter, r *http.Request) {
	routes := []Route{}
	for _, route := range h.Table().Routes() {
		routes = append(routes, Route{Host: route.Host, Path: route.Path, Service: route.Service.Name})
	}
	writeJSON(w, http.StatusOK, routes)
}
