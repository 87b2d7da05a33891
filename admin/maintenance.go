package admin

import (
	"net/http"
	"slices"

	"sluice/balancer"
	"sluice/operator"
)

// OperatedService is the answer to an order about a service.
type OperatedService struct {
	Service     string          `json:"service"`
	Maintenance *operator.Order `json:"maintenance"` // null: requests are forwarded
	Acceptance
}

// maintain answers POST /api/services/{service}/maintenance/on, with the parameters of drain.
// ?except= has addresses and networks of clients whose requests are still forwarded.
func (h orderHandler) maintain(r *http.Request, o operator.Order) (any, error) {
	o.Kind, o.Service, o.Except = operator.Maintenance, r.PathValue("service"), r.URL.Query().Get("except")
	if !h.knowsService(o.Service) {
		return nil, refuse(http.StatusNotFound, "no service %q", o.Service)
	}
	if err := h.Orders.Give(o); err != nil {
		return nil, err
	}
	return h.operatedService(r, o), nil
}

// endMaintenance answers POST /api/services/{service}/maintenance/off.
func (h orderHandler) endMaintenance(r *http.Request, o operator.Order) (any, error) {
	o.Kind, o.Service = operator.Maintenance, r.PathValue("service")
	ended, err := h.Orders.Store.End(o.Key(), o.By)
	switch {
	case err != nil:
		return nil, err
	case !ended && !h.knowsService(o.Service): // to end what is not ordered is no error
		return nil, refuse(http.StatusNotFound, "no service %q", o.Service)
	}
	return h.operatedService(r, o), nil
}

func (h orderHandler) knowsService(name string) bool {
	return slices.ContainsFunc(h.Pools(), func(p *balancer.Pool) bool { return p.Name == name })
}

func (h orderHandler) operatedService(r *http.Request, o operator.Order) OperatedService {
	answer := OperatedService{Service: o.Service, Acceptance: h.acceptance(r.Context(), o.Key())}
	answer.Maintenance = h.Orders.Set().OfService(o.Service)
	return answer
}
