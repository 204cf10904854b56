// What a dashboard's JSON may hold: Grafana's own types, drawn together where they leave holes.
//
// `Panel` of @grafana/schema takes any options for any panel; here each panel type has its own options and
// field configuration. Queries are plain records there, because each data source has its own type in its
// plugin; those of the data sources used here are at the end.
import type * as raw from '@grafana/schema/dist/types/raw/dashboard/x/types.gen';
import type * as common from '@grafana/schema/dist/types/common/common.gen';
import type * as bargauge from '@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/types.gen';
import type * as gauge from '@grafana/schema/dist/types/raw/composable/gauge/panelcfg/x/types.gen';
import type * as heatmap from '@grafana/schema/dist/types/raw/composable/heatmap/panelcfg/x/types.gen';
import type * as logs from '@grafana/schema/dist/types/raw/composable/logs/panelcfg/x/types.gen';
import type * as stat from '@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen';
import type * as statetimeline from '@grafana/schema/dist/types/raw/composable/statetimeline/panelcfg/x/types.gen';
import type * as table from '@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen';
import type * as text from '@grafana/schema/dist/types/raw/composable/text/panelcfg/x/types.gen';
import type * as timeseries from '@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen';

/** A provisioned dashboard. Instances give the `id`, and imports alone have `__inputs`. */
export interface Dashboard
  extends Omit<raw.Dashboard, 'id' | 'panels' | 'annotations' | 'templating' | 'snapshot' | 'gnetId'> {
  title: string;
  uid: string;
  panels: Array<AnyPanel | raw.RowPanel>;
  annotations: { list: Array<Annotation> };
  templating: { list: Array<Variable> };
}

/** `definition` repeats the query for the list of variables; Grafana writes it, its type lacks it. */
interface Variable extends raw.VariableModel {
  definition?: string;
}

type AnyPanel =
  | Panel<'bargauge', bargauge.Options, common.HideableFieldConfig>
  | Panel<'gauge', gauge.Options, common.HideableFieldConfig>
  | Panel<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | Panel<'logs', logs.Options, object>
  | Panel<'stat', stat.Options, common.HideableFieldConfig>
  | Panel<'state-timeline', statetimeline.Options, statetimeline.FieldConfig>
  | Panel<'table', table.Options, table.FieldConfig>
  | Panel<'text', text.Options, object>
  | Panel<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | Panel<'traces', object, object>;

interface Panel<Type extends string, Options, Custom>
  extends Omit<raw.Panel, 'type' | 'options' | 'fieldConfig' | 'targets' | 'links'> {
  type: Type;
  id: number;
  title: string;
  gridPos: raw.GridPos;
  options: Options;
  fieldConfig: FieldConfigSource<Custom>;
  /** Grafana itself writes these three fields only, not a whole DashboardLink. */
  links?: Array<DataLink>;
  targets?: Array<PrometheusQuery | LokiQuery | JaegerQuery>;
}

interface FieldConfigSource<Custom> extends Omit<raw.FieldConfigSource, 'defaults'> {
  defaults: FieldConfig<Custom>;
}

interface FieldConfig<Custom> extends Omit<raw.FieldConfig, 'custom' | 'links'> {
  custom?: Custom;
  links?: Array<DataLink>;
}

interface DataLink {
  title: string;
  url: string;
  targetBlank?: boolean;
}

/** An annotation that a data source's query makes; the built-in one is Grafana's own store. */
interface Annotation extends Omit<raw.AnnotationQuery, 'target'> {
  expr?: string;
  step?: string;
  tagKeys?: string;
  textFormat?: string;
  titleFormat?: string;
  useValueForTime?: boolean;
  target?: raw.AnnotationTarget;
}

interface Query {
  refId: string;
  datasource: { type: string; uid: string };
  hide?: boolean;
}

interface PrometheusQuery extends Query {
  datasource: { type: 'prometheus'; uid: string };
  expr: string;
  editorMode?: 'code' | 'builder';
  exemplar?: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  interval?: string;
  intervalFactor?: number;
  legendFormat?: string;
  range?: boolean;
}

interface LokiQuery extends Query {
  datasource: { type: 'loki'; uid: string };
  expr: string;
  direction?: 'backward' | 'forward' | 'scan';
  editorMode?: 'code' | 'builder';
  legendFormat?: string;
  maxLines?: number;
  queryType: 'range' | 'instant';
  step?: string;
}

interface JaegerQuery extends Query {
  datasource: { type: 'jaeger'; uid: string };
  limit?: number;
  maxDuration?: string;
  minDuration?: string;
  operation?: string;
  query?: string;
  queryType: 'search' | 'dependencyGraph' | 'upload';
  service?: string;
  tags?: string;
}
