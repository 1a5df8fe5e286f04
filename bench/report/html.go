package report

import (
	"html/template"
	"io"
	"strings"
)

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"svg":    func(e *Experiment) template.HTML { return template.HTML(e.SVG()) }, // escaped there
	"number": Number, "join": func(s []string) string { return strings.Join(s, " ") }, "day": day,
}).Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Title}}</title>
<meta name="viewport" content="width=device-width">
<style>body{font:15px/1.5 sans-serif;max-width:760px;margin:2em auto;padding:0 1em}table{border-collapse:collapse;margin:1em 0}
th,td{border-bottom:1px solid #ddd;padding:.2em .8em;text-align:right}th:first-child,td:first-child{text-align:left}
.claim{border-left:4px solid #0072b2;padding-left:.8em}.note{color:#555}svg{max-width:100%;height:auto}</style></head><body>
<h1>{{.Title}}</h1>
{{with .First}}<p class="note">Commit {{.Commit}}, {{day .Time}}, {{.Machine}}.<br><code>{{join .Command}}</code></p>{{end}}
{{range .Caveats}}<p class="note">{{.}}</p>{{end}}
{{range $e := .List}}<h2>{{.Title}}</h2>
{{if .Claim}}<p class="claim">{{.Claimant}}: {{.Claim}}</p>{{end}}
{{svg .Experiment}}
<table><tr><th>{{.X}}</th>{{range .Series}}<th>{{.}}</th>{{end}}</tr>
{{range .Rows}}<tr><td>{{.X}}</td>{{range .Values}}<td>{{.}}</td>{{end}}</tr>
{{end}}</table>
<p class="note">{{.Better}}; {{.Rounds}} round(s).{{if .Link}} Line: {{.LineText}}.{{end}} {{.Note}}</p>
{{end}}</body></html>
`))

// row is a line of a table.
type row struct {
	X      string
	Values []string
}

// HTML writes one page with all charts inline, which opens without a network.
func HTML(w io.Writer, title string, caveats []string, list []*Experiment) error {
	type shown struct {
		*Experiment
		Series   []string
		Rows     []row
		LineText string
		Claimant string
		Better   string
	}
	data := struct {
		Title   string
		Caveats []string
		First   *Experiment
		List    []shown
	}{Title: title, Caveats: caveats}
	for _, e := range list {
		s := shown{Experiment: e, Series: e.series(), LineText: e.line(), Claimant: e.claimant(), Better: e.better()}
		for _, x := range e.xs() {
			r := row{X: x}
			for _, name := range s.Series {
				text := "-"
				if v, ok := e.Get(name, x); ok {
					text = Number(v)
				}
				r.Values = append(r.Values, text)
			}
			s.Rows = append(s.Rows, r)
		}
		data.List = append(data.List, s)
	}
	if len(list) > 0 {
		data.First = list[0]
	}
	return page.Execute(w, data)
}
