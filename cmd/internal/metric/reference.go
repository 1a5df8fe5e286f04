package metric

// Info is one metric for the reference.
type Info struct {
	Name   string
	Kind   string // gauge, counter, histogram
	Labels []string
	Help   string
}

// What has more than one value, or a text for one.
var (
	buildInfo  = Info{"cawrm_build_info", "gauge", []string{"version"}, "1; the label says which program this is."}
	volumeInfo = Info{"cawrm_volume_info", "gauge", []string{"volume", "role", "volume_id", "path"}, "1; the labels say what the volume is."}
	duration   = Info{"cawrm_request_duration_seconds", "histogram", []string{"volume", "operation"},
		"How long requests of clients took, from the request's arrival at the volume to its result: read, write, flush, trim, zero; flushes that share one call count once."}
)

// Reference lists every metric of cawrm's own, in the order of the tables.
func Reference() []Info {
	all := []Info{buildInfo, volumeInfo}
	all = append(all, infos(volumeRows, "volume")...)
	all = append(all, infos(spaceRows, "volume")...)
	all = append(all, duration)
	all = append(all, infos(mirrorRows, "volume", "mirror")...)
	all = append(all, infos(sourceRows, "volume")...)
	return append(all, infos(nbdRows)...)
}

func infos[T any](rows []row[T], labels ...string) (all []Info) {
	for _, r := range rows {
		all = append(all, Info{r.name, kindOf(r.name), labels, r.help})
	}
	return all
}
