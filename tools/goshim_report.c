/*
 * The report of goshim compare: one page that needs nothing else, no network and no script. Its colours are variables, which
 * a dark screen has others of; on a narrow one the columns of the table go below each other, and the chart has
 * another shape.
 */
#include "compare.h"

#include <math.h>
#include <string.h>

static const char style[] =
    ":root{--bg:#fff;--fg:#1a1d21;--soft:#5b6470;--line:#e3e6ea;--card:#f6f7f9;"
    "--m0:#2f6fde;--m1:#2a8a55;--m2:#c2500a;--p0:#4a7fd6;--p1:#b9a13a;--p2:#d2753c;--p3:#a8446e;--good:#17703d;--bad:#b3261e}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e6e9ed;--soft:#9aa4b0;"
    "--line:#2b3138;--card:#1c2026;--m0:#7fadff;--m1:#67cf96;--m2:#ff9f5a;--p0:#5f8fe0;--p1:#c9b356;--p2:#d9864f;--p3:#c0628a;--good:#6fd79b;"
    "--bad:#ff8a80}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;max-width:1020px;padding:24px 16px 48px;background:var(--bg);color:var(--fg);"
    "font:16px/1.5 system-ui,sans-serif}\n"
    "h1{font-size:1.5rem;margin:0 0 4px}.cards{margin-top:14px}h2{font-size:1.1rem;margin:36px 0 10px}\n"
    "code{font:0.9em ui-monospace,monospace;overflow-wrap:anywhere}p{margin:6px 0}\n"
    ".soft{color:var(--soft)}\n"
    ".cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(260px,1fr));gap:12px;align-items:start}\n"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}\n"
    ".card b{display:block}\n"
    ".legend span{margin-right:18px;white-space:nowrap}\n"
    ".legend i{display:inline-block;width:22px;height:4px;border-radius:2px;margin-right:6px;"
    "vertical-align:middle}\n"
    "i.m0{background:var(--m0)}i.m1{background:var(--m1)}i.m2{background:var(--m2)}\n"
    "circle.m0,rect.m0{fill:var(--m0)}circle.m1,rect.m1{fill:var(--m1)}"
    "circle.m2,rect.m2{fill:var(--m2)}circle{fill-opacity:.55}\n"
    "path{fill:none;stroke-linejoin:round}path.m0{stroke:var(--m0)}path.m1{stroke:var(--m1)}"
    "path.m2{stroke:var(--m2)}path.mode{stroke-width:2.5}"
    "path.round{stroke-width:1;stroke-opacity:.35}\n"
    "path.mode.m1{stroke-dasharray:9 3}path.mode.m2{stroke-dasharray:3 3}\n"
    "i.p0,rect.p0{background:var(--p0);fill:var(--p0)}i.p1,rect.p1{background:var(--p1);fill:var(--p1)}"
    "i.p2,rect.p2{background:var(--p2);fill:var(--p2)}i.p3,rect.p3{background:var(--p3);fill:var(--p3)}\n"
    "svg text{fill:var(--soft);font:12px system-ui,sans-serif}.grid{stroke:var(--line)}\n"
    "svg.chart{display:block;width:100%;height:auto}svg.narrow{display:none}\n"
    "table{border-collapse:collapse;width:100%}\n"
    "th,td{text-align:right;padding:7px 10px;border-top:1px solid var(--line);vertical-align:middle}\n"
    "th:first-child,td:first-child{text-align:left}thead th{border:0;font-weight:600}\n"
    "td small{display:block;color:var(--soft);font-size:.78rem;white-space:nowrap}\n"
    "td{font-variant-numeric:tabular-nums}.strip{display:block;width:200px;margin-left:auto}\n"
    ".BETTER{color:var(--good)}.WORSE{color:var(--bad)}.NOISE,.ONEROUND{color:var(--soft)}\n"
    "table.env td{text-align:left;vertical-align:top}table.env td:first-child{color:var(--soft);"
    "white-space:nowrap}\n"
    "details{margin-top:14px}.scroll{overflow-x:auto}\n"
    "@media(max-width:720px){svg.wide{display:none}svg.narrow{display:block}\n"
    "table.figures thead{display:none}table.figures,table.figures tbody{display:block}\n"
    "table.figures tr{display:grid;grid-template-columns:repeat(var(--modes),minmax(0,1fr));column-gap:10px;"
    "border-top:1px solid var(--line);padding:8px 0}\n"
    "table.figures td{border:0;padding:2px 0;text-align:left}\n"
    "table.figures td:first-child,table.figures td:last-child,table.figures td.ratio{grid-column:1/-1}"
    "table.figures td small{white-space:normal}table.figures td.ratio span{display:block}table.figures td.ratio small{display:inline;"
    "margin-left:6px}"
    "table.figures td:first-child{font-weight:600}\n"
    "table.figures td[data-mode]::before{content:attr(data-mode);display:block;font-size:.78rem;"
    "color:var(--soft)}\n"
    ".strip{width:100%;max-width:420px;margin:4px 0}}\n";

static const char *const classes[] = {"", "ONEROUND", "NOISE", "BETTER", "WORSE", "MORE", "LESS"};

void escape(FILE *f, const char *text)
{
	for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
		switch (*s) {
		case '<': fputs("&lt;", f); break;
		case '>': fputs("&gt;", f); break;
		case '&': fputs("&amp;", f); break;
		case '"': fputs("&quot;", f); break;
		default:
			/* No text need be UTF-8: other bytes are shown as Latin-1's. */
			if (*s < ' ')
				fputs("\xef\xbf\xbd", f);
			else if (*s >= 127)
				fprintf(f, "&#%d;", *s);
			else
				putc(*s, f);
		}
	}
}

static bool haslatency(const Plan *p)
{
	return p->result[0][0].hist != NULL;
}

/* Each mode but the first in a few words. */
static void cards(const Plan *p, FILE *f)
{
	static const Verdict shown[] = {BETTER, WORSE, NOISE};
	char text[32];
	fputs("<div class=\"cards\">\n", f);
	for (int i = 1; i < p->nmodes; i++) {
		for (unsigned k = 0; k < sizeof shown / sizeof shown[0]; k++) {
			int n = 0;
			fprintf(f, "<div class=\"card\"><b class=\"%s\">%s %s</b>\n",
				classes[shown[k]], p->modes[i]->name, verdictword(p, shown[k]));
			for (int m = 0; m < NMETRICS; m++) {
				double ratio;
				if (!known(p, m) || !metrics[m].better ||
				    verdict(p, i, m, &ratio) != shown[k])
					continue;
				fprintf(f, "%s", n++ ? "<br>" : "");
				fprintf(f, "%.*s: %s times", (int)strcspn(metrics[m].name, ","),
					metrics[m].name, times(ratio, text, sizeof text));
			}
			fputs(n ? "</div>\n" : "<span class=\"soft\">nothing</span></div>\n", f);
		}
	}
	fputs("</div>\n<p class=\"soft\">", f);
	if (p->rounds == 1)
		fputs("One round shows no spread: what is noise can't be told.", f);
	else
		fprintf(
		    f,
		    "Times %s. Within the noise: some round of the one is as good as some of the "
		    "other. Without any difference, %.2g&nbsp;%% of all comparisons of %d rounds "
		    "come out otherwise by chance.",
		    p->modes[0]->name, chance(p->rounds), p->rounds);
	fputs("</p>\n", f);
}

static void legend(const Plan *p, FILE *f)
{
	fputs("<p class=\"legend\">", f);
	for (int i = 0; i < p->nmodes; i++)
		fprintf(f, "<span><i class=\"m%d\"></i>%s</span>", i, p->modes[i]->name);
	fputs("</p>\n", f);
}

static void figures(const Plan *p, FILE *f)
{
	char a[32], b[32], c[32];
	fprintf(f, "<h2>Figures</h2>\n");
	legend(p, f);
	fprintf(
	    f,
	    "<table class=\"figures\" style=\"--modes:%d\"><thead><tr><th>median of %d, least to "
	    "most</th>",
	    p->nmodes, p->rounds);
	for (int i = 0; i < p->nmodes; i++)
		fprintf(f, "<th>%s</th>", p->modes[i]->name);
	fputs(p->nmodes > 1 ? "<th>ratio</th><th>rounds</th></tr></thead><tbody>\n"
			    : "<th>rounds</th></tr></thead><tbody>\n",
	      f);
	for (int m = 0; m < NMETRICS; m++) {
		if (!known(p, m))
			continue;
		fputs("<tr><td>", f);
		escape(f, metrics[m].name);
		fputs("</td>", f);
		for (int i = 0; i < p->nmodes; i++) {
			Summary s = summary(p, i, m);
			fprintf(f, "<td data-mode=\"%s\">%s", p->modes[i]->name,
				figure(s.median, a, sizeof a));
			if (s.n)
				fprintf(f, "<small>%s to %s</small>", figure(s.min, b, sizeof b),
					figure(s.max, c, sizeof c));
			fputs("</td>", f);
		}
		if (p->nmodes > 1)
			fputs("<td class=\"ratio\">", f);
		for (int i = 1; i < p->nmodes; i++) {
			double ratio;
			Verdict v = verdict(p, i, m, &ratio);
			if (v != NOTHING)
				fprintf(f, "<span class=\"%s\">%s<small>%s%s%s</small></span>",
					classes[v], times(ratio, a, sizeof a),
					p->nmodes > 2 ? p->modes[i]->name : "",
					p->nmodes > 2 ? " " : "", verdictword(p, v));
		}
		fputs(p->nmodes > 1 ? "</td><td>" : "<td>", f);
		strip(p, f, m);
		fputs("</td></tr>\n", f);
	}
	fputs("</tbody></table>\n", f);
}

static void percentiles(const Plan *p, FILE *f)
{
	if (!haslatency(p))
		return;
	fputs("<h2>Latency over percentiles</h2>\n", f);
	legend(p, f);
	chart(p, f, "wide", 960, 420);
	chart(p, f, "narrow", 380, 340);
	fprintf(
	    f,
	    "<p class=\"soft\">All rounds of a mode together; thin lines are single rounds. Latency "
	    "counts from %s.</p>\n",
	    p->rate > 0 || p->client.rate > 0
		? "the time at which a request was planned to leave"
		: "the time at which a request left, which was when the answer before it had come: "
		  "a server that stalls delays few requests so (--rate)");
}

static void spending(const Plan *p, FILE *f)
{
	static const char *const parts[] = {"on a CPU", "waiting for a CPU",
					    "in goshim's run queue", "waiting for locks"};
	if (!known(p, CPUREQUEST))
		return;
	fputs("<h2>What a request takes of the server's threads</h2>\n<p class=\"legend\">", f);
	for (int i = 0; i < 4; i++)
		fprintf(f, "<span><i class=\"p%d\"></i>%s</span>", i, parts[i]);
	fputs("</p>\n", f);
	spentchart(p, f, "wide", 960);
	spentchart(p, f, "narrow", 380);
	fputs(
	    "<p class=\"soft\">Medians, in us. Natively locks are not seen. A kernel thread waits for a "
	    "lock until it runs again, so the wait for a CPU then is in both.</p>\n",
	    f);
}

static void lockstable(const Plan *p, FILE *f)
{
	LockSum l[5];
	bool any = false;
	for (int i = 0; i < p->nmodes; i++) {
		int n = worstlocks(p, i, l, 5);
		if (n && !any)
			fputs(
			    "<h2>Locks that were waited for</h2>\n<div class=\"scroll\"><table><thead><tr>"
			    "<th>lock</th><th>mode</th><th>kind</th><th>waits</th><th>waited</th>"
			    "<th>mean</th><th>longest</th></tr></thead><tbody>\n",
			    f);
		any |= n > 0;
		for (int k = 0; k < n; k++) {
			fputs("<tr><td><code>", f);
			escape(f, l[k].name);
			fprintf(
			    f,
			    "</code></td><td>%s</td><td>%s</td><td>%.0f</td><td>%s</td><td>%s</td><td>%s</td></tr>\n",
			    p->modes[i]->name, l[k].kind, l[k].waits, duration(l[k].waited),
			    duration(l[k].waited / l[k].waits), duration(l[k].max));
		}
	}
	if (any)
		fputs(
		    "</tbody></table></div>\n<p class=\"soft\">In all rounds. <code>goshim locks</code> has the stacks.</p>\n",
		    f);
}

static void rounds(const Plan *p, FILE *f)
{
	char text[32];
	fputs("<details><summary>Each round</summary><div class=\"scroll\"><table><thead><tr>"
	      "<th>round</th>",
	      f);
	for (int m = 0; m < NMETRICS; m++) {
		if (!known(p, m))
			continue;
		fputs("<th>", f);
		escape(f, metrics[m].name);
		fputs("</th>", f);
	}
	fputs("</tr></thead><tbody>\n", f);
	for (int r = 0; r < p->rounds; r++) {
		for (int i = 0; i < p->nmodes; i++) {
			fprintf(f, "<tr><td>%d %s</td>", r + 1, p->modes[i]->name);
			for (int m = 0; m < NMETRICS; m++)
				if (known(p, m))
					fprintf(f, "<td>%s</td>",
						figure(p->result[i][r].value[m], text,
						       sizeof text));
			fputs("</tr>\n", f);
		}
	}
	fputs("</tbody></table></div></details>\n", f);
}

void writereport(const Plan *p, FILE *f)
{
	const char *name;
	char value[4096];
	commandline(p->server, value, sizeof value);
	fputs("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
	      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
	      "<meta name=\"color-scheme\" content=\"light dark\">\n"
	      "<link rel=\"icon\" href=\"data:,\">\n<title>",
	      f);
	escape(f, value);
	fputs(" - goshim compare</title>\n<style>\n", f);
	fputs(style, f);
	fputs("</style></head><body>\n<h1>", f);
	for (int i = 0; i < p->nmodes; i++)
		fprintf(f, "%s%s",
			i == 0              ? ""
			: i < p->nmodes - 1 ? ", "
					    : " and ",
			p->modes[i]->name);
	fputs("</h1>\n<p><code>", f);
	escape(f, value);
	fputs("</code></p>\n<p class=\"soft\">under <code>", f);
	escape(f, p->load);
	fprintf(f, "</code>, %d round%s each, in turn</p>\n", p->rounds, p->rounds == 1 ? "" : "s");
	if (caution(p, value, sizeof value)) {
		fputs("<p class=\"card\"><b>Caution</b>", f);
		escape(f, value);
		fputs("</p>\n", f);
	}
	if (p->nmodes > 1)
		cards(p, f);
	figures(p, f);
	percentiles(p, f);
	spending(p, f);
	lockstable(p, f);
	rounds(p, f);
	fputs("<h2>Where and how</h2>\n<table class=\"env\">\n", f);
	for (int i = 0; environment(p, i, &name, value, sizeof value); i++) {
		fprintf(f, "<tr><td>%s</td><td>%s", name, i < 2 ? "<code>" : "");
		escape(f, value);
		fputs(i < 2 ? "</code></td></tr>\n" : "</td></tr>\n", f);
	}
	fputs("</table>\n</body></html>\n", f);
}
