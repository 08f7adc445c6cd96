"""Grafana's dashboards as Python values: the few kinds of panel that our boards are made of.

A dashboard is rows of panels on a grid of 24 columns; panels are laid out in their order. Grafana 9
and newer read what `dashboard` returns. The forms are those of Grafana's documentation, "Dashboard
JSON model" and the panels' own pages.
"""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


def target(expr, legend=None, instant=False):
    """One query. `legend` names its series by their labels, as {{label}}."""
    return {"expr": expr, "legendFormat": legend or "__auto", "instant": instant,
            "range": not instant, "datasource": DATASOURCE, "editorMode": "code"}


def _panel(kind, title, description, targets, unit, width, height, **defaults):
    for letter, query in zip("ABCDEFGH", targets, strict=False):
        query["refId"] = letter
    return {"type": kind, "title": title, "description": description, "datasource": DATASOURCE,
            "targets": targets, "gridPos": {"w": width, "h": height},
            "fieldConfig": {"defaults": {"unit": unit, **defaults}, "overrides": []}}


def _steps(warning, critical):
    """Green below `warning`, then orange, red from `critical` on."""
    steps = [{"color": "green", "value": None}]
    if warning is not None:
        steps.append({"color": "orange", "value": warning})
    if critical is not None:
        steps.append({"color": "red", "value": critical})
    return {"mode": "absolute", "steps": steps}


def graph(title, description, targets, unit="short", *, stacked=False, least=0, most=None,
          limit=None, width=8, height=8):
    """Lines over time with a table of their last and greatest values. `limit`: a dashed line."""
    custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if stacked else 5,
              "showPoints": "never", "spanNulls": False,
              "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
              "thresholdsStyle": {"mode": "off" if limit is None else "dashed"}}
    bounds = {name: value for name, value in (("min", least), ("max", most)) if value is not None}
    panel = _panel("timeseries", title, description, targets, unit, width, height, custom=custom,
                   color={"mode": "palette-classic"}, thresholds=_steps(None, limit), **bounds)
    panel["options"] = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True,
                   "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel


def stat(title, description, expr, unit="short", *, warning=None, critical=None, reverse=False,
         width=3, height=4):
    """One number, coloured from `warning` and `critical` on; `reverse`: red below `warning`."""
    panel = _panel("stat", title, description, [target(expr)], unit, width, height,
                   color={"mode": "thresholds"}, thresholds=_steps(warning, critical))
    if reverse:
        panel["fieldConfig"]["defaults"]["thresholds"]["steps"] = [
            {"color": "red", "value": None}, {"color": "green", "value": warning}]
    panel["options"] = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value", "graphMode": "area", "textMode": "auto", "orientation": "auto",
        "justifyMode": "auto"}
    return panel


def table(title, description, expr, labels, value=None, unit="short", *, width=24, height=7):
    """The labels of an instant query's series, in this order, one a row; `value`: its column."""
    query = target(expr, instant=True)
    query["format"] = "table"
    panel = _panel("table", title, description, [query], unit, width, height)
    names = {"Value": value} if value else {}
    columns = labels + (["Value"] if value else [])
    panel["transformations"] = [
        {"id": "filterFieldsByName", "options": {"include": {"names": columns}}},
        {"id": "organize", "options": {
            "indexByName": {name: index for index, name in enumerate(columns)},
            "renameByName": names}}]
    panel["options"] = {"showHeader": True, "cellHeight": "sm"}
    return panel


def text(title, markdown, *, width=24, height=6):
    """Words, no query."""
    return {"type": "text", "title": title, "gridPos": {"w": width, "h": height},
            "options": {"mode": "markdown", "content": markdown}}


def datasource_variable():
    return {"name": "datasource", "label": "Data source", "type": "datasource",
            "query": "prometheus", "refresh": 1, "hide": 0, "includeAll": False, "multi": False,
            "regex": "", "options": [], "current": {}}


def label_variable(name, label, selector):
    """A choice among the values of the label `name` of what `selector` finds; at first all."""
    query = f"label_values({selector}, {name})"
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE,
            "definition": query, "query": {"query": query, "refId": "StandardVariableQuery"},
            "refresh": 2, "hide": 0, "sort": 1, "regex": "", "options": [], "multi": True,
            "includeAll": True, "allValue": ".+",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]}}


def _lay_out(rows):
    """Numbers the panels of (row's title, panels) pairs and gives each its place."""
    panels, top = [], 0
    for title, members in rows:
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1}})
        top, left, tallest = top + 1, 0, 0
        for panel in members:
            place = panel["gridPos"]
            if left + place["w"] > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            place.update(x=left, y=top)
            left, tallest = left + place["w"], max(tallest, place["h"])
            panels.append(panel)
        top += tallest
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    return panels


def dashboard(uid, title, description, variables, rows):
    """A whole dashboard. `uid` is its address in Grafana and never changes."""
    return {
        "uid": uid, "title": title, "description": description, "tags": ["swaa"],
        "schemaVersion": 37, "version": 1, "editable": True, "graphTooltip": 1,
        "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
        "templating": {"list": [datasource_variable(), *variables]},
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "title": "SWAA", "tags": ["swaa"], "asDropdown": False,
                   "includeVars": True, "keepTime": True, "icon": "external link"}],
        "panels": _lay_out(rows)}
